//! Retiring connections: those to the old primary after a failover, and those on which no answer comes any more.
//!
//! The pool cannot close a connection that is in use. So the moment of retirement is kept. A connection that was opened
//! before that moment is closed when it next leaves or enters the pool, or by the batch lane that holds it.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// The server ends a statement after 15 s (`statement_timeout`): a longer silence is a lost connection.
const ANSWERS_WITHIN: Duration = Duration::from_secs(18);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// The process's clock starts at one hour, so that there are times before the start.
const CLOCK_START: u64 = 3_600_000_000;
/// Microseconds of the process's clock.
static RETIRED_AT: AtomicU64 = AtomicU64::new(0);
static RETIREMENTS: LazyLock<watch::Sender<()>> = LazyLock::new(|| watch::Sender::new(()));
static SILENT: Notify = Notify::const_new();

/// Microseconds of the process's clock.
pub(super) fn now() -> u64 {
    CLOCK_START + u64::try_from(START.elapsed().as_micros()).unwrap_or_default()
}

/// Retires every connection that was opened up to now.
pub(super) fn retire_connections() {
    RETIRED_AT.fetch_max(now(), Ordering::AcqRel);
    RETIREMENTS.send_replace(());
}

/// The same; and statements that wait for an answer on such a connection fail at once.
pub(super) fn retire_silent_connections() {
    retire_connections();
    SILENT.notify_waiters();
}

/// Whether a connection of this age is retired.
pub(super) fn is_retired(age: Duration) -> bool {
    let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
    now().saturating_sub(age) <= RETIRED_AT.load(Ordering::Acquire)
}

/// Changes each time that connections are retired.
pub(crate) fn retirements() -> watch::Receiver<()> {
    RETIREMENTS.subscribe()
}

/// Runs a statement, and gives up when its connection must be dead.
///
/// # Errors
///
/// The statement's own; and a time-out, when no answer came for longer than the server lets a statement run, or when the
/// watch found that the connections are silent.
pub(crate) async fn with_time_limit<T, E: From<sqlx::Error>>(
    statement: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let mut statement = pin!(statement);
    let bounded = timeout(ANSWERS_WITHIN, &mut statement);
    let silent = tokio::select! {
        biased;
        answer = bounded => match answer {
            Ok(answer) => return answer,
            Err(_) => "no answer to a statement",
        },
        () = SILENT.notified() => "the connection is silent",
    };
    // Before the statement is dropped, which returns its connection to the pool.
    retire_connections();
    Err(E::from(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, silent))))
}
