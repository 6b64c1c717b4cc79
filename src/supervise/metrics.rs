//! The metrics of supervision.

use super::task::Task;
use crate::metrics::Metric;
use metrics::counter;

const TASK_FAILURES: &str = "session_invite_task_failures_total";

pub(crate) const METRICS: &[Metric] = &[Metric::counter(
    TASK_FAILURES,
    "Tasks that ended unexpectedly. Tasks of the process are started again.",
)
.by_all(&["task"], || Task::ALL.iter().map(|task| vec![task.name()]).collect())];

pub(super) fn task_failed(task: &'static str) {
    counter!(TASK_FAILURES, "task" => task).increment(1);
}
