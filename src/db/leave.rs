//! Leaving connections: after a failover those to the old primary, and those on which nothing moves any more.
//!
//! The pool cannot be asked to close what is in use. So a moment is remembered, and a connection that was opened before
//! it is closed where it next changes hands: at the pool's door, or in a lane that keeps one.

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
/// What the process's clock shows when it begins, so that there is a time before that: an hour.
const BEGINS_AT: u64 = 3_600_000_000;
/// Microseconds of the process's clock.
static LEFT_AT: AtomicU64 = AtomicU64::new(0);
static LEFT: LazyLock<watch::Sender<()>> = LazyLock::new(|| watch::Sender::new(()));
static SILENT: Notify = Notify::const_new();

/// Microseconds of the process's clock.
pub(super) fn now() -> u64 {
    BEGINS_AT + u64::try_from(START.elapsed().as_micros()).unwrap_or_default()
}

/// No connection that was opened up to now is used again.
pub fn leave_connections() {
    LEFT_AT.fetch_max(now(), Ordering::AcqRel);
    LEFT.send_replace(());
}

/// The same, and statements that wait for an answer on one wait no longer.
pub(super) fn give_up_silent_connections() {
    leave_connections();
    SILENT.notify_waiters();
}

/// Whether a connection of this age is one of those.
pub fn is_left(age: Duration) -> bool {
    let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
    now().saturating_sub(age) <= LEFT_AT.load(Ordering::Acquire)
}

/// Changes whenever connections are left.
pub fn leaving() -> watch::Receiver<()> {
    LEFT.subscribe()
}

/// The answer of a statement, as long as its connection can be believed to live.
///
/// # Errors
///
/// Those of the statement; and a time-out when nothing came for longer than the server itself lets a statement run, or
/// when the connections turned out to be silent.
pub async fn answered<T, E: From<sqlx::Error>>(
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
    // Before the statement is dropped, and its connection goes back to the pool.
    leave_connections();
    Err(E::from(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, silent))))
}
