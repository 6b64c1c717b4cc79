//! Starts tasks, and restarts them.

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

/// After a run of this length, the wait before a restart is the shortest again.
const STEADY_AFTER: Duration = Duration::from_mins(1);
const FIRST_RESTART_AFTER: Duration = Duration::from_millis(100);
const RESTART_AFTER_AT_MOST: Duration = Duration::from_secs(5);

/// A handle on a task that is restarted when it ends. Dropping the handle leaves the task running.
#[derive(Debug)]
pub(crate) struct TaskHandle<E = Infallible>(Task, JoinHandle<Result<(), E>>);

impl<E> TaskHandle<E> {
    /// Waits until the task has ended: at `stop`, or with a fatal error.
    pub(crate) async fn ended(self) -> Result<(), E> {
        // The supervisor below never panics, and is never aborted.
        self.1.await.unwrap_or_else(|_| self.0.exit_process())
    }
}

/// Starts a task, and restarts it whenever it ends before `stop`. `start` owns what the task needs, so that it outlives a
/// panic of the task.
pub(crate) fn keep_running<F>(
    task: Task,
    stop: CancellationToken,
    mut start: impl FnMut(Pulse) -> F + Send + 'static,
) -> TaskHandle
where
    F: Future<Output = ()> + Send + 'static,
{
    keep_running_unless_fatal(task, stop, move |pulse| {
        let run = start(pulse);
        async {
            run.await;
            Ok(())
        }
    })
}

/// The same for a task that may return an error for which a restart does not help. That error ends the task, and
/// [`TaskHandle::ended`] returns it.
pub(crate) fn keep_running_unless_fatal<E, F>(
    task: Task,
    stop: CancellationToken,
    start: impl FnMut(Pulse) -> F + Send + 'static,
) -> TaskHandle<E>
where
    E: Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the supervisor")]
    TaskHandle(task, tokio::spawn(supervise(task, stop, start)))
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
    let mut backoff = Backoff::new(FIRST_RESTART_AFTER, RESTART_AFTER_AT_MOST);
    loop {
        let started = Instant::now();
        let how = match pulse.run(async { start(pulse.clone()).await }).await {
            Ok(Err(error)) => return Err(error),
            Ok(Ok(())) if stop.is_cancelled() => return Ok(()),
            Ok(Ok(())) => "it returned",
            Err(end) => end.how(),
        };
        pulse.record_end();
        metrics::task_failed(task.name());
        if stop.is_cancelled() {
            tracing::error!(task = task.name(), how, "a task ended unexpectedly, while the process stops");
            return Ok(());
        }
        tracing::error!(task = task.name(), how, "a task ended unexpectedly; it is started again");
        if started.elapsed() > STEADY_AFTER {
            backoff.reset();
        }
        if stop.run_until_cancelled(backoff.wait()).await.is_none() {
            return Ok(());
        }
    }
}

/// Starts a task of one connection. When the task ends, `lost` is cancelled, upon which the connection's owner opens
/// another.
pub(crate) fn spawn_for_connection<F>(
    task: Task,
    lost: CancellationToken,
    work: impl FnOnce(Pulse) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let supervised = async move {
        let _cancelled_at_the_end = lost.clone().drop_guard();
        let pulse = Pulse::of(task);
        match pulse.run(async { work(pulse.clone()).await }).await {
            // The connection is lost, which its owner logs.
            Ok(()) => {}
            Err(end) => {
                metrics::task_failed(task.name());
                let how = end.how();
                tracing::error!(
                    task = task.name(),
                    how,
                    "a task of a connection ended unexpectedly; the connection is opened again"
                );
            }
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the guard ends the connection")]
    tokio::spawn(supervised);
}

/// Starts work whose requester notices its end, for example by a channel that is closed then.
pub(crate) fn spawn_work(what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    #[expect(clippy::disallowed_methods, reason = "a panic is caught, and the requester notices the end")]
    tokio::spawn(named(what, work));
}

/// The same, in a tracker by which the process waits for all such work when it stops.
pub(crate) fn spawn_work_in(
    tracker: &TaskTracker,
    what: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "a panic is caught, and the requester notices the end")]
    tracker.spawn(named(what, work))
}

/// Runs the work, and logs its name if it panics. Not an `async` block: that would need twice the memory of the work, for
/// each invite in flight.
pub(super) fn named(what: &'static str, work: impl Future<Output = ()>) -> impl Future<Output = ()> {
    AssertUnwindSafe(work).catch_unwind().map(move |ended| {
        if ended.is_err() {
            metrics::task_failed(what);
            tracing::error!(task = what, "a piece of work ended in a panic");
        }
    })
}

impl Task {
    fn exit_process(self) -> ! {
        tracing::error!(task = self.name(), "a task cannot be kept up; the process ends");
        std::process::exit(1)
    }
}
