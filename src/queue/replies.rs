//! Replies to questions over the queue: who waits for which, and how many requests wait before them.

use super::{
    connection::Unusable,
    reply_to::DIRECT_REPLY_TO,
    topology::{self, Names},
};
use crate::supervise::{Pulse, Task, part_of};
use futures::StreamExt;
use lapin::{Channel, Connection, message::Delivery, options::BasicConsumeOptions, types::FieldTable};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often the broker is asked how many requests wait.
const LOOKS_EVERY: Duration = Duration::from_secs(1);
/// How long its answer may take before it counts as away: it may hold publishers back.
const PATIENCE: Duration = Duration::from_secs(3);
/// While nobody knows how many requests wait.
const UNKNOWN: u64 = u64::MAX;

/// Who waits for a reply, and what the line for them shows.
#[derive(Debug)]
pub(super) struct Replies {
    names: Names,
    waiting: Mutex<HashMap<Uuid, oneshot::Sender<Vec<u8>>>>,
    /// The number of the newest line.
    line: watch::Sender<u64>,
    backlog: AtomicU64,
}

impl Replies {
    pub fn new(names: Names) -> Self {
        Self {
            names,
            waiting: Mutex::default(),
            line: watch::Sender::new(0),
            backlog: AtomicU64::new(UNKNOWN),
        }
    }

    /// How many requests wait in the queue, as it was a second ago; `None` while nobody knows.
    pub fn backlog(&self) -> Option<u64> {
        Some(self.backlog.load(Ordering::Relaxed)).filter(|known| *known != UNKNOWN)
    }

    /// Changes to the number of each connection that is opened.
    pub fn lines(&self) -> watch::Receiver<u64> {
        self.line.subscribe()
    }

    /// Takes replies on the channel before anything is published on it. The worker declares the queues, not the gateway,
    /// which needs no right but to publish.
    pub async fn open(
        self: &Arc<Self>,
        connection: &Connection,
        channel: &Channel,
        gone: &CancellationToken,
    ) -> Result<(), Unusable> {
        let automatic = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let mut deliveries = channel
            .basic_consume(DIRECT_REPLY_TO.into(), "".into(), automatic, FieldTable::default())
            .await?;
        let looks = connection.create_channel().await?;
        self.backlog.store(self.look(&looks).await?, Ordering::Relaxed);
        let (replies, until) = (self.clone(), gone.clone());
        part_of(Task::ReplyReader, gone.clone(), move |_| async move {
            let reading = async {
                while let Some(Ok(delivery)) = deliveries.next().await {
                    replies.hand_over(delivery);
                }
            };
            until.run_until_cancelled(reading).await;
        });
        let (replies, until) = (self.clone(), gone.clone());
        part_of(Task::Backlog, gone.clone(), move |pulse| async move {
            until.run_until_cancelled(replies.watch(looks, &pulse)).await;
            replies.backlog.store(UNKNOWN, Ordering::Relaxed);
        });
        Ok(())
    }

    /// Whoever has a confirm of an older line asks again.
    pub fn line_is_open(&self, number: u64) {
        self.line.send_replace(number);
    }

    /// Until the broker says that the queue is gone, which ends the channel.
    async fn watch(&self, channel: Channel, pulse: &Pulse) {
        loop {
            pulse.idle();
            tokio::time::sleep(LOOKS_EVERY).await;
            pulse.step("asking the broker for the queue's length");
            let look = self.look(&channel);
            tokio::pin!(look);
            let answer = loop {
                match tokio::time::timeout(PATIENCE, &mut look).await {
                    Ok(answer) => break answer,
                    Err(_) => self.backlog.store(UNKNOWN, Ordering::Relaxed),
                }
            };
            match answer {
                Ok(backlog) => self.backlog.store(backlog, Ordering::Relaxed),
                Err(_) => return,
            }
        }
    }

    async fn look(&self, channel: &Channel) -> Result<u64, Unusable> {
        Ok(topology::backlog(channel, &self.names.requests).await?.into())
    }

    /// Waits for the reply with this correlation id, until the first of the two is dropped.
    pub fn register(&self, id: Uuid) -> (Registered<'_>, oneshot::Receiver<Vec<u8>>) {
        let (told, reply) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, told);
        (Registered { id, replies: self }, reply)
    }

    /// A reply that nobody waits for any more is dropped: the outcome is in the sessions.
    fn hand_over(&self, delivery: Delivery) {
        let correlation = delivery.properties.correlation_id().as_ref();
        let id = correlation.and_then(|id| Uuid::try_parse(id.as_str()).ok());
        let told = id.and_then(|id| self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        if let Some(told) = told {
            let _ = told.send(delivery.data);
        }
    }
}

/// Waits for a reply until it is dropped.
#[derive(Debug)]
pub(super) struct Registered<'a> {
    id: Uuid,
    replies: &'a Replies,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.replies.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
