//! Asking the worker over the queue: a request out, its reply back by RabbitMQ's direct reply-to
//! (<https://www.rabbitmq.com/docs/direct-reply-to>), which belongs to the channel that the request was published on.

use super::{
    connection::Unusable,
    direct::DIRECT_REPLY_TO,
    publish::{Manner, Outgoing, Published, Publisher},
    topology::{self, Names},
};
use crate::{
    config::BrokerConfig,
    supervise::{Pulse, Task, part_of},
};
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

/// Why a question has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Surely not in the queue.
    #[error("the request was not published: {0}")]
    NotPublished(&'static str),
    /// It is in the queue, or may be: whoever takes it goes on with it.
    #[error("no reply came in time")]
    NoReply,
}

/// A handle on a line that requests go out on, and replies come back.
#[derive(Debug, Clone)]
pub struct Asking {
    publisher: Publisher,
    replies: Arc<Replies>,
}

impl Asking {
    /// Starts the publishing task; it ends at `stop`.
    pub fn start(config: BrokerConfig, stop: CancellationToken) -> Self {
        let replies = Arc::new(Replies {
            names: Names::new(&config.queue_prefix),
            waiting: Mutex::default(),
            line: watch::Sender::new(0),
            backlog: AtomicU64::new(UNKNOWN),
        });
        let publisher = Publisher::start_with(Task::Asking, config, stop, Manner::Answered(replies.clone()));
        Self { publisher, replies }
    }

    /// How many requests wait in the queue, as it was a second ago; `None` while the broker does not answer.
    pub fn backlog(&self) -> Option<u64> {
        let known = self.replies.backlog.load(Ordering::Relaxed);
        (self.publisher.is_publishing() && known != UNKNOWN).then_some(known)
    }

    /// Why no request can be published, in words for an operator; `None` while they can.
    pub fn problem(&self) -> Option<String> {
        if self.backlog().is_some() { None } else { self.publisher.problem() }
    }

    /// Publishes a request, and waits for its reply. Its `reply_to` and `correlation_id` are set here. It has to have a
    /// `message_id` of its sender's: when the line is lost after the confirm, the reply is lost with it, and the same
    /// message asks for it again.
    ///
    /// A request that was taken goes out even when the caller stops waiting.
    ///
    /// `id` is the question's own, and becomes its correlation id.
    pub async fn ask(&self, id: Uuid, mut message: Outgoing, within: Duration) -> Result<Vec<u8>, AskError> {
        if self.backlog().is_none() {
            return Err(AskError::NotPublished("the broker is away"));
        }
        let correlation = id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned();
        message.properties =
            message.properties.with_reply_to(DIRECT_REPLY_TO.into()).with_correlation_id(correlation.into());
        let (_registered, reply) = self.replies.register(id);
        let asking = self.until_replied(Arc::new(message), reply);
        tokio::time::timeout(within, asking).await.unwrap_or(Err(AskError::NoReply))
    }

    async fn until_replied(
        &self,
        message: Arc<Outgoing>,
        mut reply: oneshot::Receiver<Vec<u8>>,
    ) -> Result<Vec<u8>, AskError> {
        let mut lines = self.replies.line.subscribe();
        let mut maybe_taken = false;
        loop {
            let settled = tokio::select! {
                biased;
                // It may overtake the confirm.
                came = &mut reply => return came.map_err(|_| AskError::NoReply),
                settled = self.publisher.settle(message.clone()) => settled,
            };
            let Ok(settled) = settled else { return Err(AskError::NoReply) };
            maybe_taken |= settled.maybe_before;
            match settled.published {
                Published::Routed | Published::Lost | Published::Blamed => maybe_taken = true,
                // The reply to an earlier copy of it may still come.
                Published::Unroutable | Published::Refused if maybe_taken => {}
                Published::Unroutable => return Err(AskError::NotPublished("the queue is not there")),
                Published::Refused => return Err(AskError::NotPublished("the queue is full")),
            }
            tokio::select! {
                came = &mut reply => return came.map_err(|_| AskError::NoReply),
                _ = lines.wait_for(|line| *line > settled.line) => {}
            }
        }
    }
}

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
    /// Takes replies on the channel before anything is published on it. The worker declares the queues, not the gateway,
    /// which needs no right but to publish.
    pub(super) async fn open(
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
    pub(super) fn line_is_open(&self, number: u64) {
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

    fn register(&self, id: Uuid) -> (Registered<'_>, oneshot::Receiver<Vec<u8>>) {
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
struct Registered<'a> {
    id: Uuid,
    replies: &'a Replies,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.replies.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
