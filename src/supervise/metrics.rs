//! What supervision counts.

use crate::metrics::Metric;
use metrics::counter;

const TASK_FAILURES: &str = "session_invite_task_failures_total";

pub const METRICS: &[Metric] = &[Metric::counter(
    TASK_FAILURES,
    &["task"],
    "Tasks that ended though nobody had asked them to. Tasks of the process are started again.",
)];

pub(super) fn task_failed(task: &'static str) {
    counter!(TASK_FAILURES, "task" => task).increment(1);
}
