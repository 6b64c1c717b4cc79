//! Running a statement again when its error may pass.

use super::{
    error::{Passing, action, may_hide_a_commit},
    kinds::{Kind, Repeat},
    leave::answered,
    reach::why_no_connection,
    sqlstate::Action,
};
use crate::{backoff::Backoff, trouble::Trouble};
use std::{future::Future, time::Duration};
use tokio_util::sync::CancellationToken;

/// Runs a statement until the database has answered it: with backoff while the database is away, for as long as the worker
/// lives.
///
/// # Errors
///
/// [`Trouble::Unsure`] where the statement may have been carried out and must not be repeated.
pub async fn persist<T, E: Passing, F: Future<Output = Result<T, E>>>(
    kind: &'static Kind,
    stop: &CancellationToken,
    statement: impl Fn() -> F,
) -> Result<T, Trouble> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let (mut told, mut waiting) = (false, None);
    loop {
        // Boxed, as callers' futures would each have room for it.
        let result = answered(Box::pin(statement())).await;
        kind.note(&result);
        let error = match result {
            Ok(answer) => {
                if told {
                    tracing::info!(statement = kind.name, "the database answers again");
                }
                return Ok(answer);
            }
            Err(error) => error,
        };
        if !error.passes() {
            return Err(Trouble::Defect(format!(
                "the statement {:?} failed: {}",
                kind.name,
                error.summary()
            )));
        }
        if kind.repeat == Repeat::Counts && error.database_error().is_none_or(may_hide_a_commit) {
            return Err(Trouble::Unsure(kind.name));
        }
        waiting.get_or_insert_with(|| kind.wait());
        if !told && backoff.upcoming() >= Duration::from_millis(200) {
            told = true;
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
pub enum Patience {
    /// Repeats only after a lost connection: the client can send its request again.
    Brief,
    /// Waits for every fault that passes: the request is not sent again.
    Long,
}

/// Runs a statement for a request: again where a connection was lost, and the statement may be repeated. The caller bounds
/// the time.
pub async fn repeat<T, E: Passing, F: Future<Output = Result<T, E>>>(
    kind: &'static Kind,
    patience: Patience,
    statement: impl Fn() -> F,
) -> Result<T, E> {
    /// A pool may have that many connections that are lost.
    const BRIEFLY: u32 = 5;
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    let mut tries = 0;
    loop {
        // Boxed, as callers' futures would each have room for it.
        let result = answered(Box::pin(statement())).await;
        kind.note(&result);
        let Err(error) = result else { return result };
        tries += 1;
        let hides = error.database_error().is_none_or(may_hide_a_commit);
        let may_repeat = kind.repeat == Repeat::Harmless || !hides;
        let is_lost = error.database_error().is_some_and(|error| {
            let conflict = error
                .as_database_error()
                .is_some_and(|error| error.code().is_some_and(|c| c.starts_with("40")));
            conflict || action(error) == Action::LeaveConnection
        });
        let again = match patience {
            Patience::Brief => is_lost && tries < BRIEFLY,
            Patience::Long => error.passes(),
        };
        if !may_repeat || !again {
            return Err(error);
        }
        backoff.wait().await;
    }
}

/// The cause of an error, for people.
async fn why(error: &impl Passing) -> String {
    match error.database_error() {
        Some(sqlx::Error::PoolTimedOut) => why_no_connection().await,
        _ => error.summary(),
    }
}
