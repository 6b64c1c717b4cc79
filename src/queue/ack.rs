//! Acknowledging: what is settled is told to the broker many at a time, by the one task that knows a channel's tags.
//!
//! AMQP's `multiple` acknowledges all up to a tag. It is used up to the last tag below which everything is settled, and
//! never further.

use crate::{
    failpoint,
    supervise::{Pulse, Task, part_of},
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

/// How long one that is settled waits for those before it, until it is acknowledged by itself.
const HELD_AT_MOST: Duration = Duration::from_millis(20);
/// How long the broker may take to accept an acknowledgement. RabbitMQ is busy for many seconds with a message whose headers
/// are nested 26,000 deep. `watch` finds a dead connection sooner.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// Settled deliveries that are looked at together at most.
const TOGETHER: usize = 1_024;

/// The SHA-256 of a request without a message id.
pub(super) type Anonymous = [u8; 32];

/// What is to be told to the broker of a channel's deliveries.
#[derive(Debug, Clone)]
pub(super) struct Acks {
    // Bounded by the prefetch: each delivery is settled once, and the task takes all that there is.
    told: mpsc::UnboundedSender<Told>,
}

#[derive(Debug)]
enum Told {
    /// Its reply is confirmed. `then` is told once the acknowledgement is written.
    Done { tag: DeliveryTag, anonymous: Option<Anonymous>, then: Option<oneshot::Sender<()>> },
    /// Unfinished: it goes back to the queue, for another worker.
    Return(DeliveryTag),
    /// Nothing can be done with it: the broker carries it on to where the queue's dead letters go.
    Refuse(DeliveryTag),
    /// Nothing is held back any longer.
    Flush(oneshot::Sender<()>),
}

impl Acks {
    /// Starts the task, which ends with its line. `sure` is given the anonymous requests whose acknowledgement is written.
    pub fn start(channel: Channel, lost: CancellationToken, sure: mpsc::Sender<Anonymous>) -> Self {
        let (told, settled) = mpsc::unbounded_channel();
        let teller = Teller { channel, lost, sure, tags: Tags::default(), anonymous: BTreeMap::new() };
        part_of(Task::Acks, teller.lost.clone(), |pulse| teller.run(settled, pulse));
        Self { told }
    }

    /// Acknowledges, soon. On a lost line the message comes again, and finds its row.
    pub fn done(&self, tag: DeliveryTag, anonymous: Option<Anonymous>) {
        let _ = self.told.send(Told::Done { tag, anonymous, then: None });
    }

    /// The same; this waits until the acknowledgement is written, or the line lost.
    pub async fn done_now(&self, tag: DeliveryTag, anonymous: Option<Anonymous>) {
        let (then, written) = oneshot::channel();
        let _ = self.told.send(Told::Done { tag, anonymous, then: Some(then) });
        self.flush().await;
        let _ = written.await;
    }

    /// Unfinished: back to the queue, for another worker. A lost line returns it as well.
    pub fn give_back(&self, tag: DeliveryTag) {
        let _ = self.told.send(Told::Return(tag));
    }

    /// The broker carries it on to where the queue's dead letters go.
    pub fn refuse(&self, tag: DeliveryTag) {
        let _ = self.told.send(Told::Refuse(tag));
    }

    /// Until all that was settled before is written, or the line is lost.
    pub async fn flush(&self) {
        let (then, written) = oneshot::channel();
        let _ = self.told.send(Told::Flush(then));
        let _ = written.await;
    }
}

struct Teller {
    channel: Channel,
    lost: CancellationToken,
    sure: mpsc::Sender<Anonymous>,
    tags: Tags,
    /// By their tags, until those are acknowledged.
    anonymous: BTreeMap<DeliveryTag, Anonymous>,
}

impl Teller {
    async fn run(mut self, mut settled: mpsc::UnboundedReceiver<Told>, pulse: Pulse) {
        let mut told = Vec::new();
        let mut held_until = None;
        loop {
            pulse.idle();
            let lost = self.lost.clone();
            let came = tokio::select! {
                biased;
                () = lost.cancelled() => return,
                came = settled.recv_many(&mut told, TOGETHER) => came,
                () = at(held_until) => usize::MAX,
            };
            if came == 0 {
                return;
            }
            pulse.step("acknowledging");
            // Those that are ready to run come first, and may have something to tell too.
            yield_now().await;
            while let Ok(more) = settled.try_recv() {
                told.push(more);
            }
            let overdue = held_until.is_some_and(|until| until <= Instant::now());
            if self.tell(&mut told, overdue).await.is_none() {
                // All that is unacknowledged comes again, on another line.
                return self.lost.cancel();
            }
            held_until = match held_until.filter(|_| !overdue) {
                _ if !self.tags.holds() => None,
                None => Some(Instant::now() + HELD_AT_MOST),
                until => until,
            };
        }
    }

    /// Tells the broker; `None` if the channel does not take it.
    async fn tell(&mut self, told: &mut Vec<Told>, overdue: bool) -> Option<()> {
        let (mut then, mut each) = (Vec::new(), overdue);
        for one in told.drain(..) {
            match one {
                Told::Done { tag, anonymous, then: waiting } => {
                    self.tags.hold(tag);
                    self.anonymous.extend(anonymous.map(|request| (tag, request)));
                    then.extend(waiting);
                }
                Told::Return(tag) => {
                    let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
                    self.on_line(self.channel.basic_nack(tag, requeue)).await?;
                    self.tags.told(tag);
                }
                Told::Refuse(tag) => {
                    let carry_on = BasicRejectOptions { requeue: false };
                    self.on_line(self.channel.basic_reject(tag, carry_on)).await?;
                    self.tags.told(tag);
                }
                Told::Flush(waiting) => {
                    each = true;
                    then.push(waiting);
                }
            }
        }
        if let Some(tag) = self.tags.all_up_to() {
            let multiple = BasicAckOptions { multiple: true };
            self.on_line(self.channel.basic_ack(tag, multiple)).await?;
            failpoint::hit("acknowledged");
            let after = self.anonymous.split_off(&(tag + 1));
            let written = std::mem::replace(&mut self.anonymous, after);
            self.are_sure(written.into_values());
        }
        if each {
            for tag in self.tags.take_held() {
                self.on_line(self.channel.basic_ack(tag, BasicAckOptions::default())).await?;
                failpoint::hit("acknowledged");
                let request = self.anonymous.remove(&tag);
                self.are_sure(request.into_iter());
            }
        }
        for waiting in then {
            let _ = waiting.send(());
        }
        Some(())
    }

    /// The client never ends what it is asked for once its connection is gone.
    async fn on_line(&self, asked: impl Future<Output = lapin::Result<()>>) -> Option<()> {
        let answered = self.lost.run_until_cancelled(tokio::time::timeout(TAKEN_WITHIN, asked)).await;
        answered?.ok()?.inspect_err(|error| tracing::debug!(%error, "an acknowledgement was lost")).ok()
    }

    /// Where no room is left, a request stays unsure, which is safe.
    fn are_sure(&self, requests: impl Iterator<Item = Anonymous>) {
        for request in requests {
            let _ = self.sure.try_send(request);
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// A channel's delivery tags, which count up from 1. What it keeps is bounded by the deliveries in hand.
#[derive(Debug, Default)]
struct Tags {
    /// All up to this one are settled, and told.
    below: DeliveryTag,
    /// Settled ones above it that are still to be acknowledged.
    held: BTreeSet<DeliveryTag>,
    /// Those above it that are told, as the first and the last of a run.
    told: BTreeMap<DeliveryTag, DeliveryTag>,
}

impl Tags {
    /// It is still to be acknowledged.
    fn hold(&mut self, tag: DeliveryTag) {
        self.held.insert(tag);
    }

    /// The broker knows it no more.
    fn told(&mut self, tag: DeliveryTag) {
        let before = self.told.range(..tag).next_back().filter(|(_, last)| **last + 1 == tag);
        let first = before.map_or(tag, |(first, _)| *first);
        let last = self.told.remove(&(tag + 1)).unwrap_or(tag);
        self.told.insert(first, last);
    }

    /// The tag up to which all are settled, if any of them is still to be acknowledged; those count as told then. It is itself
    /// one of them, as the broker knows no others.
    fn all_up_to(&mut self) -> Option<DeliveryTag> {
        let mut up_to = None;
        loop {
            let next = self.below + 1;
            if self.held.remove(&next) {
                self.below = next;
                up_to = Some(next);
            } else if let Some(last) = self.told.remove(&next) {
                self.below = last;
            } else {
                return up_to;
            }
        }
    }

    /// Whether any is still to be acknowledged.
    fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// All of those; they count as told then.
    fn take_held(&mut self) -> BTreeSet<DeliveryTag> {
        let held = std::mem::take(&mut self.held);
        for tag in &held {
            self.told(*tag);
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_settled_in_order_is_acknowledged_together() {
        let mut tags = Tags::default();
        for tag in [2, 1, 3, 5] {
            tags.hold(tag);
        }
        assert_eq!((tags.all_up_to(), tags.holds()), (Some(3), true));
        assert_eq!((tags.take_held(), tags.holds()), (BTreeSet::from([5]), false));
        tags.hold(4);
        assert_eq!(tags.all_up_to(), Some(4), "5 is told already, and the broker does not know it any more");
    }

    #[test]
    fn what_went_back_is_not_acknowledged_and_holds_nobody_up() {
        let mut tags = Tags::default();
        tags.hold(2);
        tags.told(1);
        assert_eq!(tags.all_up_to(), Some(2));
        tags.told(3);
        assert_eq!((tags.all_up_to(), tags.holds()), (None, false));
    }

    proptest! {
        /// As RabbitMQ has it: a tag that it does not know (any more) is an error, and `multiple` takes all it knows up to one.
        #[test]
        fn whatever_the_order_each_is_told_once_and_only_when_it_is_settled(
            order in Just((1..=60_u64).collect::<Vec<_>>()).prop_shuffle(),
            returned in proptest::collection::btree_set(1..=60_u64, 0..10),
            rounds in proptest::collection::vec((1..8_usize, any::<bool>()), 60),
        ) {
            let mut tags = Tags::default();
            let (mut outstanding, mut settled): (BTreeSet<u64>, BTreeSet<u64>) = ((1..=60).collect(), BTreeSet::new());
            let mut order = order.into_iter();
            for (count, each) in rounds {
                for tag in order.by_ref().take(count) {
                    let back = returned.contains(&tag);
                    settled.insert(tag);
                    if back {
                        tags.told(tag);
                        outstanding.remove(&tag);
                    } else {
                        tags.hold(tag);
                    }
                }
                if let Some(tag) = tags.all_up_to() {
                    prop_assert!(outstanding.contains(&tag));
                    prop_assert!((1..=tag).all(|tag| settled.contains(&tag)));
                    outstanding.retain(|other| *other > tag);
                }
                let alone = if each { tags.take_held() } else { BTreeSet::new() };
                for tag in alone {
                    prop_assert!(settled.contains(&tag) && outstanding.remove(&tag));
                }
            }
            prop_assert!(outstanding.is_empty() && !tags.holds() && tags.told.is_empty());
        }
    }
}
