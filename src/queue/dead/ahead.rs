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

/// Letters that the first fetch takes at most: as many as a list of the console shows.
const FIRST: u16 = 50;
/// Letters that a later fetch takes at most: a letter may have 128 KiB.
const LARGEST: u16 = 200;
/// A queue that sends nothing for so long has no more, or others hold them.
const COMES_WITHIN: Duration = Duration::from_millis(300);

/// The letters that come next. Nobody has settled them.
#[derive(Debug)]
pub(super) struct Ahead {
    letters: VecDeque<Delivery>,
    /// How many the next fetch takes; 0 once the queue has sent fewer.
    size: u16,
    fetches: u32,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { letters: VecDeque::new(), size: FIRST, fetches: 0 }
    }
}

impl Ahead {
    pub(super) fn next(&mut self) -> Option<Delivery> {
        self.letters.pop_front()
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.letters.len()).unwrap_or(u32::MAX)
    }

    /// Whether letters should be fetched, if `left` are still to be read. One alone costs less by `basic.get`.
    pub(super) fn is_due(&self, left: u32) -> bool {
        self.letters.is_empty() && self.size > 0 && left > 1
    }

    /// Fetches the next letters, `left` of them at most, in the order of the queue.
    pub(super) async fn fetch(
        &mut self,
        channel: &Channel,
        queue: &str,
        left: u32,
    ) -> Result<(), BrokerError> {
        let size = u16::try_from(left).unwrap_or(u16::MAX).min(self.size);
        self.fetches += 1;
        // The broker returns unsettled letters in the order of the tags.
        let tag = format!("dead-letters-{:06}", self.fetches);
        // It counts for the consumers that come after it.
        channel.basic_qos(size, BasicQosOptions::default()).await?;
        let consuming = channel.basic_consume(
            queue.into(),
            tag.as_str().into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut consumer =
            consuming.await.map_err(|error| BrokerError::of(BrokerPermission::Read, queue, error))?;
        while self.letters.len() < usize::from(size)
            && let Ok(Some(delivery)) = timeout(COMES_WITHIN, consumer.next()).await
        {
            self.letters.push_back(delivery?);
        }
        channel.basic_cancel(tag.as_str().into(), BasicCancelOptions::default()).await?;
        // What the broker sent before its answer.
        while let Some(delivery) = consumer.next().await {
            self.letters.push_back(delivery?);
        }
        let is_short = self.letters.len() < usize::from(size);
        self.size = if is_short { 0 } else { LARGEST };
        Ok(())
    }
}
