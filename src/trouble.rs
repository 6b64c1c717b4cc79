//! What can go wrong with an invite that is not an answer to it, and waiting for what passes.

use crate::{
    backoff::Backoff,
    db::{self, Remedy},
};
use std::{future::Future, time::Duration};
use tokio_util::sync::CancellationToken;

/// An invite that could not be finished. Unlike a refusal, nothing has been decided.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Trouble {
    /// The worker is stopping: the message goes back to the queue, for another.
    #[error("the worker is stopping")]
    Stopping,
    /// A bug, or data that the database will never take: trying again cannot help.
    #[error("{0}")]
    Defect(String),
}

/// An error that may pass by itself.
pub trait Passing {
    /// Whether the same statement may well succeed later.
    fn passes(&self) -> bool;
    /// In words that hold none of the statement's values.
    fn summary(&self) -> String;
}

impl Passing for sqlx::Error {
    fn passes(&self) -> bool {
        db::remedy(self) == Remedy::Wait
    }

    /// Without PostgreSQL's detail, which repeats the row.
    fn summary(&self) -> String {
        match self {
            Self::Database(error) => format!("{} ({})", error.message(), error.code().unwrap_or_default()),
            other => other.to_string(),
        }
    }
}

/// Runs a statement until the database has answered it: with backoff while the database is away, for as
/// long as the worker lives. Statements run so must be safe to repeat, as a lost connection hides their commit.
pub async fn persist<T, E: Passing, F: Future<Output = Result<T, E>>>(
    name: &str,
    stop: &CancellationToken,
    statement: impl Fn() -> F,
) -> Result<T, Trouble> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let mut told = false;
    loop {
        let error = match statement().await {
            Ok(answer) => {
                if told {
                    tracing::info!(statement = name, "the database answers again");
                }
                return Ok(answer);
            }
            Err(error) => error,
        };
        if !error.passes() {
            return Err(Trouble::Defect(format!("the statement {name:?} failed: {}", error.summary())));
        }
        if !told && backoff.upcoming() >= Duration::from_millis(200) {
            told = true;
            tracing::warn!(statement = name, error = %error.summary(), "the database does not answer; waiting for it");
        }
        tokio::select! {
            () = stop.cancelled() => return Err(Trouble::Stopping),
            () = backoff.wait() => {}
        }
    }
}
