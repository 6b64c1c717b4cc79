//! Working on the dead-letter queue.

use crate::{
    config::BrokerConfig,
    queue::dead::{DeadLetterError, DeadLetters, MAX_READ},
};

/// Works on the queue. Messages that are not settled go back to it, also after an error.
pub(crate) async fn with<T, E: From<DeadLetterError>>(
    config: BrokerConfig,
    work: impl AsyncFnOnce(&mut DeadLetters) -> Result<T, E>,
) -> Result<T, E> {
    let mut dead = DeadLetters::open(config, MAX_READ).await?;
    let done = work(&mut dead).await;
    finish(dead, done).await
}

/// Closes the queue, on which this was done.
pub(super) async fn finish<T, E: From<DeadLetterError>>(
    dead: DeadLetters,
    done: Result<T, E>,
) -> Result<T, E> {
    let closed = dead.close().await;
    let done = done?;
    closed?;
    Ok(done)
}
