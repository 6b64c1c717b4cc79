//! Running a statement again when its error is transient.

use super::{
    error::{StatementError, action, may_hide_a_commit},
    kinds::{Repeat, StatementKind},
    nodes::why_no_connection,
    retire::with_time_limit,
    sqlstate::ErrorAction,
};
use crate::{backoff::Backoff, trouble::Trouble};
use std::{future::Future, time::Duration};
use tokio_util::sync::CancellationToken;

/// Runs a statement until the database answers it. While the database is away it is repeated with backoff, until `stop`.
///
/// # Errors
///
/// [`Trouble::Unsure`] when the statement may have been carried out and must not be repeated; [`Trouble::Defect`] when its
/// error is not transient; [`Trouble::Stopping`] after `stop`.
pub(crate) async fn persist<T, E: StatementError, F: Future<Output = Result<T, E>>>(
    kind: &'static StatementKind,
    stop: &CancellationToken,
    statement: impl Fn() -> F,
) -> Result<T, Trouble> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let (mut is_logged, mut waiting) = (false, None);
    loop {
        // Boxed, to keep the callers' futures small.
        let result = with_time_limit(Box::pin(statement())).await;
        kind.note(&result);
        let error = match result {
            Ok(answer) => {
                if is_logged {
                    tracing::info!(statement = kind.name, "the database answers again");
                }
                return Ok(answer);
            }
            Err(error) => error,
        };
        if !error.is_transient() {
            // What was read may be wrong although no statement failed.
            let failed = error.database_error().map(|_| format!("the statement {:?} failed: ", kind.name));
            return Err(Trouble::Defect(failed.unwrap_or_default() + &error.summary()));
        }
        if kind.repeat == Repeat::Counts && error.database_error().is_none_or(may_hide_a_commit) {
            return Err(Trouble::Unsure(kind.name));
        }
        waiting.get_or_insert_with(|| kind.wait());
        if !is_logged && backoff.upcoming() >= Duration::from_millis(200) {
            is_logged = true;
            let error = why(&error).await;
            tracing::warn!(
                statement = kind.name,
                error,
                "the database does not carry out a statement; waiting until it does"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return Err(Trouble::Stopping),
            () = backoff.wait() => {}
        }
    }
}

/// How long a request waits for a database that is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Repeats only after a lost connection or a conflict: the client can send its request again.
    Brief,
    /// Repeats after every transient error: the client does not send its request again.
    Long,
}

/// Runs a statement for a request. It is repeated as `patience` allows, if the statement may be repeated at all. The caller
/// bounds the time.
pub(crate) async fn repeat<T, E: StatementError, F: Future<Output = Result<T, E>>>(
    kind: &'static StatementKind,
    patience: Patience,
    statement: impl Fn() -> F,
) -> Result<T, E> {
    /// A pool may hold so many lost connections.
    const BRIEF_TRIES: u32 = 5;
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    let mut tries = 0;
    loop {
        // Boxed, to keep the callers' futures small.
        let result = with_time_limit(Box::pin(statement())).await;
        kind.note(&result);
        let Err(error) = result else { return result };
        tries += 1;
        let hides = error.database_error().is_none_or(may_hide_a_commit);
        let may_repeat = kind.repeat == Repeat::Harmless || !hides;
        let is_lost = error.database_error().is_some_and(|error| {
            let conflict = error
                .as_database_error()
                .is_some_and(|error| error.code().is_some_and(|c| c.starts_with("40")));
            conflict || action(error) == ErrorAction::RetireConnections
        });
        let again = match patience {
            Patience::Brief => is_lost && tries < BRIEF_TRIES,
            Patience::Long => error.is_transient(),
        };
        if !may_repeat || !again {
            return Err(error);
        }
        backoff.wait().await;
    }
}

/// The cause of an error, in words for the log.
async fn why(error: &impl StatementError) -> String {
    match error.database_error() {
        Some(sqlx::Error::PoolTimedOut) => why_no_connection().await,
        _ => error.summary(),
    }
}
