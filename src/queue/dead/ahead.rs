//! Letters that are fetched together. A quorum queue commits each `basic.get`, which takes milliseconds; a consumer is sent
//! its letters as fast as the network takes them.

use crate::queue::connection::{BrokerError, BrokerPermission};
use futures::StreamExt as _;
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{collections::VecDeque, time::Duration};
use tokio::time::timeout;

/// Letters that one fetch takes at most. Anyone who may publish can put messages of 16 MiB here, and these come all at once.
const TOGETHER: u16 = 32;
/// A queue that sends nothing for so long has probably no more.
const COMES_WITHIN: Duration = Duration::from_secs(1);

/// The letters that come next. Nobody has settled them.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    letters: VecDeque<Delivery>,
    fetches: u32,
    /// Whether the last letter needed no copy. If it did, the next ones probably do too, so they are fetched one by one: a fetch
    /// counts as a delivery, even if the copy then fails.
    is_young: bool,
}

impl Ahead {
    /// The next letter, of those `left` to be read. `None` if none came in time.
    pub(super) async fn next(
        &mut self,
        channel: &Channel,
        queue: &str,
        left: u32,
    ) -> Result<Option<Delivery>, BrokerError> {
        if self.letters.is_empty() {
            let together = if self.is_young { TOGETHER } else { 1 };
            self.fetch(channel, queue, u16::try_from(left).unwrap_or(u16::MAX).min(together)).await?;
        }
        Ok(self.letters.pop_front())
    }

    pub(super) fn set_young(&mut self, is_young: bool) {
        self.is_young = is_young;
    }

    /// Those that were fetched and not read.
    pub(super) fn into_letters(self) -> VecDeque<Delivery> {
        self.letters
    }

    /// Fetches so many letters at most, in the order of the queue.
    async fn fetch(&mut self, channel: &Channel, queue: &str, size: u16) -> Result<(), BrokerError> {
        self.fetches += 1;
        // The broker returns unsettled letters in the order of the tags.
        let tag = format!("dead-letters-{:06}", self.fetches);
        // A prefetch applies only to consumers that start later.
        channel.basic_qos(size, BasicQosOptions::default()).await?;
        let consuming = channel.basic_consume(
            queue.into(),
            tag.as_str().into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut consumer =
            consuming.await.map_err(|error| BrokerError::of(BrokerPermission::Read, queue, error))?;
        while self.letters.len() < usize::from(size) {
            match timeout(COMES_WITHIN, consumer.next()).await {
                Ok(Some(delivery)) => self.letters.push_back(delivery?),
                // The broker has ended the consumer, as when the queue is deleted.
                Ok(None) => return Ok(()),
                Err(_) => break,
            }
        }
        channel.basic_cancel(tag.as_str().into(), BasicCancelOptions::default()).await?;
        // What the broker sent before its answer.
        while let Some(delivery) = consumer.next().await {
            self.letters.push_back(delivery?);
        }
        Ok(())
    }
}
