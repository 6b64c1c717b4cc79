//! Asking the worker over the queue: a request out, its reply back by RabbitMQ's direct reply-to
//! (<https://www.rabbitmq.com/docs/direct-reply-to>), which belongs to the channel that the request was published on.

use super::{
    publish::{Manner, Outgoing, Published, Publisher},
    replies::Replies,
    reply_to::DIRECT_REPLY_TO,
    topology::Names,
};
use crate::{config::BrokerConfig, supervise::Task};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

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
        let replies = Arc::new(Replies::new(Names::new(&config.queue_prefix)));
        let publisher = Publisher::start_with(Task::Asking, config, stop, Manner::Answered(replies.clone()));
        Self { publisher, replies }
    }

    /// How many requests wait in the queue, as it was a second ago; `None` while the broker does not answer.
    pub fn backlog(&self) -> Option<u64> {
        self.replies.backlog().filter(|_| self.publisher.is_publishing())
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
        let mut lines = self.replies.lines();
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
