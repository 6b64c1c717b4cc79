//! Acknowledging many deliveries at a time, by the one task that knows a channel's delivery tags.
//!
//! AMQP's `multiple` acknowledges all deliveries up to a tag. The task uses it up to the last tag below which every
//! delivery is settled, and never further.

use crate::{
    failpoint,
    supervise::{Pulse, Task, spawn_for_connection},
};
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions},
    types::DeliveryTag,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// How long a settled delivery waits for those before it. Then it is acknowledged by itself.
const ACKED_WITHIN: Duration = Duration::from_millis(20);
/// How long the broker may take to accept an acknowledgement. RabbitMQ is busy for many seconds with a message whose headers
/// are nested 26,000 deep. `watch` finds a dead connection sooner.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);
/// Settlements that are handled together at most.
const BATCH: usize = 1_024;

/// The SHA-256 of a request without a message id.
pub(super) type AnonymousDigest = [u8; 32];

/// A handle on the task that acknowledges a channel's deliveries.
#[derive(Debug, Clone)]
pub(super) struct Acks {
    // Bounded by the prefetch: each delivery is settled once, and the task takes all that there are.
    settlements: mpsc::UnboundedSender<Settlement>,
}

/// What the broker shall do with a delivery.
#[derive(Debug)]
enum Settlement {
    /// Forget it: its reply is confirmed. `written` is notified once the acknowledgement is on the connection.
    Ack { tag: DeliveryTag, anonymous: Option<AnonymousDigest>, written: Option<oneshot::Sender<()>> },
    /// Put it back into the queue, for another worker: it is unfinished.
    Requeue(DeliveryTag),
    /// Carry it on to where the queue's dead letters go: the worker can do nothing with it.
    Reject(DeliveryTag),
    /// Acknowledge at once what waits for the deliveries before it.
    Flush(oneshot::Sender<()>),
}

impl Acks {
    /// Starts the task, which ends with its connection. `written` gets the anonymous requests whose acknowledgement is on the
    /// connection.
    pub(super) fn start(
        channel: Channel,
        lost: CancellationToken,
        written: mpsc::Sender<AnonymousDigest>,
    ) -> Self {
        let (settlements, received) = mpsc::unbounded_channel();
        let writer =
            AckWriter { channel, lost, written, tags: DeliveryTags::default(), anonymous: BTreeMap::new() };
        spawn_for_connection(Task::Acks, writer.lost.clone(), |pulse| writer.run(received, pulse));
        Self { settlements }
    }

    /// Acknowledges soon. If the connection is lost before, the message is delivered again, and finds its row.
    pub(super) fn ack(&self, tag: DeliveryTag, anonymous: Option<AnonymousDigest>) {
        let _ = self.settlements.send(Settlement::Ack { tag, anonymous, written: None });
    }

    /// Acknowledges, and waits until the acknowledgement is written or the connection is lost.
    pub(super) async fn ack_now(&self, tag: DeliveryTag, anonymous: Option<AnonymousDigest>) {
        let (notify, written) = oneshot::channel();
        let _ = self.settlements.send(Settlement::Ack { tag, anonymous, written: Some(notify) });
        self.flush().await;
        let _ = written.await;
    }

    /// Returns an unfinished message to the queue, for another worker. So does a lost connection.
    pub(super) fn requeue(&self, tag: DeliveryTag) {
        let _ = self.settlements.send(Settlement::Requeue(tag));
    }

    /// Has the broker carry the message on to where the queue's dead letters go.
    pub(super) fn reject(&self, tag: DeliveryTag) {
        let _ = self.settlements.send(Settlement::Reject(tag));
    }

    /// Waits until all that was settled before is written, or the connection is lost.
    pub(super) async fn flush(&self) {
        let (notify, written) = oneshot::channel();
        let _ = self.settlements.send(Settlement::Flush(notify));
        let _ = written.await;
    }
}

/// The task behind [`Acks`].
struct AckWriter {
    channel: Channel,
    lost: CancellationToken,
    written: mpsc::Sender<AnonymousDigest>,
    tags: DeliveryTags,
    /// Anonymous requests whose delivery is not acknowledged yet.
    anonymous: BTreeMap<DeliveryTag, AnonymousDigest>,
}

impl AckWriter {
    async fn run(mut self, mut received: mpsc::UnboundedReceiver<Settlement>, pulse: Pulse) {
        let mut settlements = Vec::new();
        let mut flush_at = None;
        loop {
            pulse.idle();
            let lost = self.lost.clone();
            let count = tokio::select! {
                biased;
                () = lost.cancelled() => return,
                count = received.recv_many(&mut settlements, BATCH) => count,
                () = sleep_until(flush_at) => usize::MAX,
            };
            if count == 0 {
                return;
            }
            pulse.step("acknowledging");
            // Tasks that are ready to run may settle more deliveries.
            yield_now().await;
            while let Ok(more) = received.try_recv() {
                settlements.push(more);
            }
            let is_overdue = flush_at.is_some_and(|at| at <= Instant::now());
            if self.write(&mut settlements, is_overdue).await.is_none() {
                // The broker delivers all that is unacknowledged again, on another connection.
                return self.lost.cancel();
            }
            flush_at = match flush_at.filter(|_| !is_overdue) {
                _ if !self.tags.has_unacked() => None,
                None => Some(Instant::now() + ACKED_WITHIN),
                at => at,
            };
        }
    }

    /// Writes settlements to the channel; `None` if it does not take them. `flush` acknowledges also what waits for the
    /// deliveries before it.
    async fn write(&mut self, settlements: &mut Vec<Settlement>, flush: bool) -> Option<()> {
        let (mut waiting, mut flush) = (Vec::new(), flush);
        for settlement in settlements.drain(..) {
            match settlement {
                Settlement::Ack { tag, anonymous, written } => {
                    self.tags.add_unacked(tag);
                    self.anonymous.extend(anonymous.map(|request| (tag, request)));
                    waiting.extend(written);
                }
                Settlement::Requeue(tag) => {
                    let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
                    self.until_lost(self.channel.basic_nack(tag, requeue)).await?;
                    self.tags.mark_settled(tag);
                }
                Settlement::Reject(tag) => {
                    let carry_on = BasicRejectOptions { requeue: false };
                    self.until_lost(self.channel.basic_reject(tag, carry_on)).await?;
                    self.tags.mark_settled(tag);
                }
                Settlement::Flush(written) => {
                    flush = true;
                    waiting.push(written);
                }
            }
        }
        if let Some(tag) = self.tags.take_leading() {
            let multiple = BasicAckOptions { multiple: true };
            self.until_lost(self.channel.basic_ack(tag, multiple)).await?;
            failpoint::hit("acknowledged");
            let after = self.anonymous.split_off(&(tag + 1));
            let requests = std::mem::replace(&mut self.anonymous, after);
            self.report_written(requests.into_values());
        }
        if flush {
            for tag in self.tags.take_unacked() {
                self.until_lost(self.channel.basic_ack(tag, BasicAckOptions::default())).await?;
                failpoint::hit("acknowledged");
                let request = self.anonymous.remove(&tag);
                self.report_written(request.into_iter());
            }
        }
        for written in waiting {
            let _ = written.send(());
        }
        Some(())
    }

    /// Waits for lapin, which never completes a call on a lost connection.
    async fn until_lost(&self, call: impl Future<Output = lapin::Result<()>>) -> Option<()> {
        let written = self.lost.run_until_cancelled(tokio::time::timeout(WRITTEN_WITHIN, call)).await;
        written?.ok()?.inspect_err(|error| tracing::debug!(%error, "an acknowledgement was lost")).ok()
    }

    /// A request for which the channel has no room stays unsure, which is safe.
    fn report_written(&self, requests: impl Iterator<Item = AnonymousDigest>) {
        for request in requests {
            let _ = self.written.try_send(request);
        }
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// A channel's delivery tags, which count up from 1. The prefetch bounds what it holds.
#[derive(Debug, Default)]
struct DeliveryTags {
    /// The broker knows none up to this one any more.
    settled_up_to: DeliveryTag,
    /// Tags above it that are still to be acknowledged.
    unacked: BTreeSet<DeliveryTag>,
    /// Tags above it that the broker does not know any more: the first and the last of each run.
    settled: BTreeMap<DeliveryTag, DeliveryTag>,
}

impl DeliveryTags {
    fn add_unacked(&mut self, tag: DeliveryTag) {
        self.unacked.insert(tag);
    }

    /// The broker does not know this tag any more.
    fn mark_settled(&mut self, tag: DeliveryTag) {
        let before = self.settled.range(..tag).next_back().filter(|(_, last)| **last + 1 == tag);
        let first = before.map_or(tag, |(first, _)| *first);
        let last = self.settled.remove(&(tag + 1)).unwrap_or(tag);
        self.settled.insert(first, last);
    }

    /// The last tag of those to be acknowledged, below which no delivery is unsettled. All up to it then count as settled.
    /// `None` if there is none to acknowledge. The broker knows the tag: it refuses others.
    fn take_leading(&mut self) -> Option<DeliveryTag> {
        let mut up_to = None;
        loop {
            let next = self.settled_up_to + 1;
            if self.unacked.remove(&next) {
                self.settled_up_to = next;
                up_to = Some(next);
            } else if let Some(last) = self.settled.remove(&next) {
                self.settled_up_to = last;
            } else {
                return up_to;
            }
        }
    }

    fn has_unacked(&self) -> bool {
        !self.unacked.is_empty()
    }

    /// All tags that are to be acknowledged; they then count as settled.
    fn take_unacked(&mut self) -> BTreeSet<DeliveryTag> {
        let unacked = std::mem::take(&mut self.unacked);
        for tag in &unacked {
            self.mark_settled(*tag);
        }
        unacked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn deliveries_that_are_settled_in_order_are_acknowledged_together() {
        let mut tags = DeliveryTags::default();
        for tag in [2, 1, 3, 5] {
            tags.add_unacked(tag);
        }
        assert_eq!((tags.take_leading(), tags.has_unacked()), (Some(3), true));
        assert_eq!((tags.take_unacked(), tags.has_unacked()), (BTreeSet::from([5]), false));
        tags.add_unacked(4);
        assert_eq!(tags.take_leading(), Some(4), "the broker does not know 5 any more");
    }

    #[test]
    fn a_returned_message_is_not_acknowledged_and_delays_no_other() {
        let mut tags = DeliveryTags::default();
        tags.add_unacked(2);
        tags.mark_settled(1);
        assert_eq!(tags.take_leading(), Some(2));
        tags.mark_settled(3);
        assert_eq!((tags.take_leading(), tags.has_unacked()), (None, false));
    }

    proptest! {
        /// RabbitMQ refuses a tag that it does not know (any more), and `multiple` takes all that it knows up to one.
        #[test]
        fn in_any_order_each_tag_is_acknowledged_once_and_only_when_it_is_settled(
            order in Just((1..=60_u64).collect::<Vec<_>>()).prop_shuffle(),
            returned in proptest::collection::btree_set(1..=60_u64, 0..10),
            rounds in proptest::collection::vec((1..8_usize, any::<bool>()), 60),
        ) {
            let mut tags = DeliveryTags::default();
            let (mut outstanding, mut settled): (BTreeSet<u64>, BTreeSet<u64>) = ((1..=60).collect(), BTreeSet::new());
            let mut order = order.into_iter();
            for (count, flush) in rounds {
                for tag in order.by_ref().take(count) {
                    settled.insert(tag);
                    if returned.contains(&tag) {
                        tags.mark_settled(tag);
                        outstanding.remove(&tag);
                    } else {
                        tags.add_unacked(tag);
                    }
                }
                if let Some(tag) = tags.take_leading() {
                    prop_assert!(outstanding.contains(&tag));
                    prop_assert!((1..=tag).all(|tag| settled.contains(&tag)));
                    outstanding.retain(|other| *other > tag);
                }
                let alone = if flush { tags.take_unacked() } else { BTreeSet::new() };
                for tag in alone {
                    prop_assert!(settled.contains(&tag) && outstanding.remove(&tag));
                }
            }
            prop_assert!(outstanding.is_empty() && !tags.has_unacked() && tags.settled.is_empty());
        }
    }
}
