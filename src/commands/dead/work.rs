//! Working on the dead-letter queue.

use crate::{config::BrokerConfig, queue::dead::DeadLetters};

/// Works on the queue, and gives back what is not settled, whatever came of the work.
pub async fn with<T>(
    config: BrokerConfig,
    work: impl AsyncFnOnce(&mut DeadLetters) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut dead = DeadLetters::open(config).await?;
    let done = work(&mut dead).await;
    let closed = dead.close().await;
    let done = done?;
    closed?;
    Ok(done)
}
