//! Replies to calls over the queue: which call waits for which reply, and how many requests wait in the queue.

use super::{
    connection::BrokerError,
    reply_to::DIRECT_REPLY_TO,
    topology::{self, QueueNames},
};
use crate::supervise::{Pulse, Task, spawn_for_connection};
use futures::StreamExt;
use lapin::{Channel, Connection, message::Delivery, options::BasicConsumeOptions, types::FieldTable};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often the queue's length is read.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How long the broker may take to answer before it counts as away: it may hold publishers back.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// The backlog while the queue's length is not known.
const UNKNOWN: u64 = u64::MAX;

/// The calls that wait for a reply, and the queue's length.
#[derive(Debug)]
pub(super) struct PendingReplies {
    names: QueueNames,
    calls: Mutex<HashMap<Uuid, oneshot::Sender<Vec<u8>>>>,
    /// The number of the newest connection.
    connection: watch::Sender<u64>,
    backlog: AtomicU64,
}

impl PendingReplies {
    pub(super) fn new(names: QueueNames) -> Self {
        Self {
            names,
            calls: Mutex::default(),
            connection: watch::Sender::new(0),
            backlog: AtomicU64::new(UNKNOWN),
        }
    }

    /// How many requests wait in the queue, as of a second ago; `None` while that is not known.
    pub(super) fn backlog(&self) -> Option<u64> {
        Some(self.backlog.load(Ordering::Relaxed)).filter(|known| *known != UNKNOWN)
    }

    /// Yields the number of each connection that is opened.
    pub(super) fn connections(&self) -> watch::Receiver<u64> {
        self.connection.subscribe()
    }

    /// Consumes replies on the channel, which must be done before anything is published on it. The queues are declared by the
    /// worker, so that the gateway needs the permission to publish only. `limit` is how long the node may be silent before
    /// another one is used.
    pub(super) async fn consume_on(
        self: &Arc<Self>,
        connection: &Connection,
        channel: &Channel,
        lost: &CancellationToken,
        limit: Option<Duration>,
    ) -> Result<(), BrokerError> {
        let automatic = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let mut deliveries = channel
            .basic_consume(DIRECT_REPLY_TO.into(), "".into(), automatic, FieldTable::default())
            .await?;
        let backlog_channel = connection.create_channel().await?;
        self.backlog.store(self.read_backlog(&backlog_channel).await?, Ordering::Relaxed);
        let (replies, until) = (self.clone(), lost.clone());
        spawn_for_connection(Task::ReplyReader, lost.clone(), move |_| async move {
            let reading = async {
                while let Some(Ok(delivery)) = deliveries.next().await {
                    replies.deliver(delivery);
                }
            };
            until.run_until_cancelled(reading).await;
        });
        let (replies, until, status) = (self.clone(), lost.clone(), connection.status().clone());
        spawn_for_connection(Task::Backlog, lost.clone(), move |pulse| async move {
            let is_too_long =
                |silence: Duration| limit.is_some_and(|limit| silence > limit) && !status.blocked();
            until.run_until_cancelled(replies.watch_backlog(backlog_channel, is_too_long, &pulse)).await;
            replies.backlog.store(UNKNOWN, Ordering::Relaxed);
        });
        Ok(())
    }

    /// A connection is open. Calls whose request was confirmed on an older one publish it again.
    pub(super) fn connection_opened(&self, number: u64) {
        self.connection.send_replace(number);
    }

    /// Ends when the broker closes the channel, because the queue is deleted, or is silent for too long.
    async fn watch_backlog(&self, channel: Channel, is_too_long: impl Fn(Duration) -> bool, pulse: &Pulse) {
        loop {
            pulse.idle();
            tokio::time::sleep(POLL_EVERY).await;
            pulse.step("reading the queue's length");
            let reading = self.read_backlog(&channel);
            tokio::pin!(reading);
            let began = Instant::now();
            let answer = loop {
                match tokio::time::timeout(ANSWERS_WITHIN, &mut reading).await {
                    Ok(answer) => break answer,
                    Err(_) if is_too_long(began.elapsed()) => return,
                    Err(_) => self.backlog.store(UNKNOWN, Ordering::Relaxed),
                }
            };
            match answer {
                Ok(backlog) => self.backlog.store(backlog, Ordering::Relaxed),
                Err(_) => return,
            }
        }
    }

    async fn read_backlog(&self, channel: &Channel) -> Result<u64, BrokerError> {
        Ok(topology::backlog(channel, &self.names.requests).await?.into())
    }

    /// Registers a call for the reply with this correlation id, until the registration is dropped.
    pub(super) fn register(&self, id: Uuid) -> (CallRegistration<'_>, oneshot::Receiver<Vec<u8>>) {
        let (call, reply) = oneshot::channel();
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).insert(id, call);
        (CallRegistration { id, replies: self }, reply)
    }

    /// Passes a reply to its call. If that has stopped waiting, the reply is dropped: the outcome is in the sessions.
    fn deliver(&self, delivery: Delivery) {
        let correlation = delivery.properties.correlation_id().as_ref();
        let id = correlation.and_then(|id| Uuid::try_parse(id.as_str()).ok());
        let call = id.and_then(|id| self.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        if let Some(call) = call {
            let _ = call.send(delivery.data);
        }
    }
}

/// Removes its call from the pending ones when it is dropped.
#[derive(Debug)]
pub(super) struct CallRegistration<'a> {
    id: Uuid,
    replies: &'a PendingReplies,
}

impl Drop for CallRegistration<'_> {
    fn drop(&mut self) {
        self.replies.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
