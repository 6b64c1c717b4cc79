//! Each task's current step, and since when it lasts.

use super::task::Task;
use crate::failpoint;
use futures::FutureExt;
use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

/// A step that takes longer is a problem. No statement and no call to the broker may take so long.
const STUCK_AFTER: Duration = Duration::from_mins(1);
/// For how long an unexpected end of a task is a problem.
const ENDED_LATELY: Duration = Duration::from_mins(1);

/// The tasks that run now.
static RUNNING: Mutex<Vec<Weak<TaskState>>> = Mutex::new(Vec::new());

/// A task reports its steps through this. It costs two uncontended locks for each step.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(Arc<TaskState>);

#[derive(Debug)]
struct TaskState {
    task: Task,
    activity: Mutex<TaskActivity>,
    failpoint: failpoint::TaskFailpoint,
}

#[derive(Debug, Default)]
struct TaskActivity {
    /// The current step, and its start; `None` while the task waits for work or for its time.
    step: Option<(&'static str, Instant)>,
    /// The last unexpected end.
    ended_at: Option<Instant>,
}

/// How a task ended unexpectedly.
#[derive(Debug, Clone, Copy)]
pub(super) enum UnexpectedEnd {
    Panicked,
    /// A test made it return.
    Returned,
}

impl UnexpectedEnd {
    pub(super) fn how(self) -> &'static str {
        match self {
            Self::Panicked => "a panic",
            Self::Returned => "it returned",
        }
    }
}

impl Pulse {
    pub(super) fn of(task: Task) -> Self {
        let state = Arc::new(TaskState {
            task,
            activity: Mutex::default(),
            failpoint: failpoint::TaskFailpoint::default(),
        });
        let mut running = lock(&RUNNING);
        running.retain(|state| state.strong_count() > 0);
        running.push(Arc::downgrade(&state));
        Self(state)
    }

    /// The task begins a step, which `what` describes for operators. It must end within a minute.
    pub(crate) fn step(&self, what: &'static str) {
        lock(&self.0.activity).step = Some((what, Instant::now()));
        self.0.failpoint.step(self.0.task.name());
    }

    /// The task waits for work or for its time, however long.
    pub(crate) fn idle(&self) {
        lock(&self.0.activity).step = None;
    }

    /// Runs the task once, from its start to its end.
    pub(super) async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, UnexpectedEnd> {
        self.idle();
        let work = async {
            self.0.failpoint.step(self.0.task.name());
            work.await
        };
        // The panic hook has logged a panic.
        let result = AssertUnwindSafe(self.0.failpoint.run(work)).catch_unwind().await;
        result.map_err(|_| UnexpectedEnd::Panicked)?.ok_or(UnexpectedEnd::Returned)
    }

    /// Records an unexpected end.
    pub(super) fn record_end(&self) {
        *lock(&self.0.activity) = TaskActivity { step: None, ended_at: Some(Instant::now()) };
    }
}

impl TaskState {
    fn problem(&self, now: Instant) -> Option<String> {
        let (task, activity) = (self.task.name(), lock(&self.activity));
        if let Some((what, since)) = activity.step
            && now - since >= failpoint::shortened(STUCK_AFTER)
        {
            let seconds = (now - since).as_secs();
            return Some(format!(
                "the task \"{task}\" has made no step for {seconds} s; the last one is: {what}. If that continues, \
                 restart this process"
            ));
        }
        let ago = now - activity.ended_at?;
        let seconds = ago.as_secs();
        (ago < ENDED_LATELY).then(|| {
            format!(
                "the task \"{task}\" ended unexpectedly {seconds} s ago, and was started again: see the log"
            )
        })
    }
}

/// The tasks that have made no step for a minute, and those that ended unexpectedly within the last minute; for `/readyz`.
pub(crate) fn problems() -> Vec<String> {
    problems_at(Instant::now())
}

pub(super) fn problems_at(now: Instant) -> Vec<String> {
    let running: Vec<_> = lock(&RUNNING).iter().filter_map(Weak::upgrade).collect();
    running.iter().filter_map(|state| state.problem(now)).collect()
}

/// Ignores poisoning: a panic under one of these locks leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
