//! What a task does at the moment, and since when.

use super::task::Task;
use crate::failpoint;
use futures::FutureExt;
use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

/// A step that takes longer is a problem; no statement or question to the broker may take so long.
const STUCK_AFTER: Duration = Duration::from_mins(1);
/// For how long a task that ended unasked is a problem.
const ENDED_LATELY: Duration = Duration::from_mins(1);

/// The tasks that live now.
static LIVING: Mutex<Vec<Weak<State>>> = Mutex::new(Vec::new());

/// By which a task shows its steps: two uncontended locks a round, whatever the round is for.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<State>);

#[derive(Debug)]
struct State {
    task: Task,
    now: Mutex<Now>,
    fate: failpoint::Fate,
}

#[derive(Debug, Default)]
struct Now {
    /// The step that it is at. Between two rounds, while it waits for work or time, it is at none.
    step: Option<(&'static str, Instant)>,
    /// When it last ended unasked.
    ended: Option<Instant>,
}

/// How a task came to an end that nobody asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    Panicked,
    /// A test has ended it.
    Returned,
}

impl Ended {
    pub(super) fn how(self) -> &'static str {
        match self {
            Self::Panicked => "a panic",
            Self::Returned => "it returned",
        }
    }
}

impl Pulse {
    pub(super) fn of(task: Task) -> Self {
        let state = Arc::new(State { task, now: Mutex::default(), fate: failpoint::Fate::default() });
        let mut living = lock(&LIVING);
        living.retain(|state| state.strong_count() > 0);
        living.push(Arc::downgrade(&state));
        Self(state)
    }

    /// The task begins a step, which `what` names for people. It must be over within a minute.
    pub fn step(&self, what: &'static str) {
        lock(&self.0.now).step = Some((what, Instant::now()));
        self.0.fate.meet(self.0.task.name());
    }

    /// The task waits for work or for its time, and may do so for ever.
    pub fn idle(&self) {
        lock(&self.0.now).step = None;
    }

    /// One life of the task, from its start to its end.
    pub(super) async fn live<T>(&self, life: impl Future<Output = T>) -> Result<T, Ended> {
        self.idle();
        let life = async {
            self.0.fate.meet(self.0.task.name());
            life.await
        };
        // The hook has logged a panic.
        let ended = AssertUnwindSafe(self.0.fate.of(life)).catch_unwind().await;
        ended.map_err(|_| Ended::Panicked)?.ok_or(Ended::Returned)
    }

    pub(super) fn has_ended(&self) {
        let mut now = lock(&self.0.now);
        *now = Now { step: None, ended: Some(Instant::now()) };
    }
}

impl State {
    fn problem(&self, at: Instant) -> Option<String> {
        let (task, now) = (self.task.name(), lock(&self.now));
        if let Some((what, since)) = now.step
            && at - since >= failpoint::instead_of(STUCK_AFTER)
        {
            let seconds = (at - since).as_secs();
            return Some(format!(
                "the task \"{task}\" has made no step for {seconds} s; the last one is: {what}. If that goes on, \
                 restart this process"
            ));
        }
        let ago = at - now.ended?;
        let seconds = ago.as_secs();
        (ago < ENDED_LATELY).then(|| {
            format!("the task \"{task}\" ended unasked {seconds} s ago, and was started again: see the log")
        })
    }
}

/// The tasks that have made no step for a minute, and those that ended unasked within the last one; for `/readyz`.
pub fn problems() -> Vec<String> {
    problems_at(Instant::now())
}

pub(super) fn problems_at(now: Instant) -> Vec<String> {
    let living: Vec<_> = lock(&LIVING).iter().filter_map(Weak::upgrade).collect();
    living.iter().filter_map(|state| state.problem(now)).collect()
}

/// A panic while it is held leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
