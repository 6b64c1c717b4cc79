//! Tasks that do not end in silence (contract, section 8, promise 8).
//!
//! Every task of a process is started here, in one of three ways, and clippy.toml forbids the others:
//!
//! - [`keep_up`]: a task that lives as long as the process. When it ends unasked, the log names it, and it starts again.
//! - [`part_of`]: a task of one connection. When it ends, the connection ends too, and its owner opens another.
//! - [`aside`]: a piece of work beside its requester, who notices its end.
//!
//! Each task of the first two kinds reports its steps through a [`Pulse`]. [`problems`] names those that make none.

mod pulse;
mod runtime;

pub use pulse::{Pulse, problems};
pub use runtime::watch as watch_runtime;

use crate::{backoff::Backoff, metrics};
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

/// A process that goes on until a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    Worker,
    Gateway,
}

macro_rules! tasks {
    ($($(#[$doc:meta])* $task:ident = $name:literal in $($process:ident),+;)*) => {
        /// The tasks of the processes. A new one needs an entry here, and so the tests know it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Task {
            $($(#[$doc])* $task,)*
        }

        impl Task {
            pub const ALL: &[Self] = &[$(Self::$task),*];

            /// As the log and `problems` name it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$task => $name,)* }
            }

            /// The processes that it belongs to.
            pub const fn processes(self) -> &'static [Process] {
                match self { $(Self::$task => &[$(Process::$process),+],)* }
            }
        }
    };
}

tasks! {
    /// Waits for SIGTERM and SIGINT.
    Signals = "signals" in Worker, Gateway;
    /// Shows that the runtime runs its tasks.
    Runtime = "runtime" in Worker, Gateway;
    MetricsUpkeep = "metrics upkeep" in Worker, Gateway;
    /// Answers `/healthz`, `/readyz` and `/metrics` on `HTTP_ADDR`.
    Operators = "answers to operators" in Worker, Gateway;
    /// Looks whether the database does what the process needs.
    Database = "watch of the database" in Worker, Gateway;
    /// Reads the groups again when they have changed.
    Groups = "groups" in Worker, Gateway;
    /// Take the new messages of a queue.
    Requests = "consumer of requests" in Worker;
    Dropped = "consumer of the dropped" in Worker;
    /// Each statement that invites share has a task.
    InsertSessions = "insert sessions" in Worker;
    RecordOutcomes = "record outcomes" in Worker;
    Replies = "publisher of replies" in Worker;
    DirectReplies = "publisher of direct replies" in Worker;
    Events = "publisher of events" in Worker;
    Sweep = "sweep of sessions" in Worker;
    Retention = "retention" in Worker;
    Limits = "upkeep of limits" in Worker;
    /// Take new connections.
    Connections = "connections" in Gateway;
    Asking = "publisher of requests" in Gateway;
    /// Of a connection that publishes: notices that it is lost.
    LineWatch = "watch of a publishing connection" in Worker, Gateway;
    /// Of a consumer's connection: acknowledges.
    Acks = "acknowledgements" in Worker;
    /// Of a consumer's connection: marks acknowledgements that are sure.
    SureAcks = "marks of sure acknowledgements" in Worker;
    /// Of the connection that asks: takes replies.
    ReplyReader = "reader of replies" in Gateway;
    /// Of the connection that asks: looks how many requests wait.
    Backlog = "look at the backlog" in Gateway;
}

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

impl Task {
    fn is_lost(self) -> ! {
        tracing::error!(task = self.name(), "a task cannot be kept up; the process ends");
        std::process::exit(1)
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
        metrics::task_ended(task.name());
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
                metrics::task_ended(task.name());
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
fn named(what: &'static str, work: impl Future<Output = ()>) -> impl Future<Output = ()> {
    AssertUnwindSafe(work).catch_unwind().map(move |ended| {
        if ended.is_err() {
            metrics::task_ended(what);
            tracing::error!(task = what, "a piece of work ended in a panic");
        }
    })
}

#[cfg(test)]
mod tests;
