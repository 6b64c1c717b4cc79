//! Starting tasks, and starting them again.

use super::{metrics, pulse::Pulse, task::Task};
use crate::backoff::Backoff;
use futures::FutureExt;
use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A task that lived so long was well: when it ends, it starts again soon.
const STEADY: Duration = Duration::from_mins(1);
const STARTS_AGAIN_WITHIN: Duration = Duration::from_millis(100);
const STARTS_AGAIN_AT_LAST: Duration = Duration::from_secs(5);

/// A task that is kept up. Dropping this leaves it running: it is its own supervisor.
#[derive(Debug)]
pub struct Kept<E = Infallible>(Task, JoinHandle<Result<(), E>>);

impl<E> Kept<E> {
    /// Waits until the task has ended, as it was asked to, or with an error that only the process's end can tell.
    pub async fn ended(self) -> Result<(), E> {
        // The supervisor below has nothing that panics, and nobody aborts it.
        self.1.await.unwrap_or_else(|_| self.0.is_lost())
    }
}

/// Starts a task, and starts it again whenever it ends before `stop`. What it needs must be in `start`, and outlive a panic.
pub fn keep_up<F>(
    task: Task,
    stop: CancellationToken,
    mut start: impl FnMut(Pulse) -> F + Send + 'static,
) -> Kept
where
    F: Future<Output = ()> + Send + 'static,
{
    keep_up_unless(task, stop, move |pulse| {
        let life = start(pulse);
        async {
            life.await;
            Ok(())
        }
    })
}

/// The same for a task that may find what no start mends: that error ends it, and [`Kept::ended`] has it.
pub fn keep_up_unless<E, F>(
    task: Task,
    stop: CancellationToken,
    start: impl FnMut(Pulse) -> F + Send + 'static,
) -> Kept<E>
where
    E: Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the supervisor")]
    Kept(task, tokio::spawn(supervise(task, stop, start)))
}

async fn supervise<E, F>(
    task: Task,
    stop: CancellationToken,
    mut start: impl FnMut(Pulse) -> F,
) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    let pulse = Pulse::of(task);
    let mut backoff = Backoff::new(STARTS_AGAIN_WITHIN, STARTS_AGAIN_AT_LAST);
    loop {
        let began = Instant::now();
        let how = match pulse.live(async { start(pulse.clone()).await }).await {
            Ok(Err(error)) => return Err(error),
            Ok(Ok(())) if stop.is_cancelled() => return Ok(()),
            Ok(Ok(())) => "it returned",
            Err(ended) => ended.how(),
        };
        pulse.has_ended();
        metrics::task_failed(task.name());
        if stop.is_cancelled() {
            tracing::error!(task = task.name(), how, "a task ended unasked, while the process stops");
            return Ok(());
        }
        tracing::error!(task = task.name(), how, "a task ended unasked; it is started again");
        if began.elapsed() > STEADY {
            backoff.reset();
        }
        if stop.run_until_cancelled(backoff.wait()).await.is_none() {
            return Ok(());
        }
    }
}

/// Starts a task of one connection. Whatever ends the task cancels `line`, by which the connection's owner knows that it
/// has to open another.
pub fn part_of<F>(task: Task, line: CancellationToken, work: impl FnOnce(Pulse) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let living = async move {
        let _ends_the_line = line.clone().drop_guard();
        let pulse = Pulse::of(task);
        match pulse.live(async { work(pulse.clone()).await }).await {
            // It has seen that the line is lost, and the owner says so.
            Ok(()) => {}
            Err(ended) => {
                metrics::task_failed(task.name());
                let how = ended.how();
                tracing::error!(
                    task = task.name(),
                    how,
                    "a task of a connection ended unasked; the connection is opened again"
                );
            }
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the guard ends the connection")]
    tokio::spawn(living);
}

/// Starts a piece of work whose requester notices its end, as by a channel that is closed then.
pub fn aside(what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    #[expect(clippy::disallowed_methods, reason = "a panic is caught, and the requester notices the end")]
    tokio::spawn(named(what, work));
}

/// The same, where somebody waits for all such pieces at the end.
pub fn aside_in(
    all: &TaskTracker,
    what: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "a panic is caught, and the requester notices the end")]
    all.spawn(named(what, work))
}

/// Runs it; the log names it when it panics. No `async` block: that would keep the room for the work twice, and each invite
/// in hand has one.
pub(super) fn named(what: &'static str, work: impl Future<Output = ()>) -> impl Future<Output = ()> {
    AssertUnwindSafe(work).catch_unwind().map(move |ended| {
        if ended.is_err() {
            metrics::task_failed(what);
            tracing::error!(task = what, "a piece of work ended in a panic");
        }
    })
}

impl Task {
    fn is_lost(self) -> ! {
        tracing::error!(task = self.name(), "a task cannot be kept up; the process ends");
        std::process::exit(1)
    }
}
