//! A call to a worker over the queue: a request out, its reply back by RabbitMQ's direct reply-to
//! (<https://www.rabbitmq.com/docs/direct-reply-to>), which belongs to the channel that the request was published on.

use super::{
    publish::{Outgoing, PublishMode, PublishResult, Publisher},
    replies::PendingReplies,
    reply_to::DIRECT_REPLY_TO,
    topology::QueueNames,
};
use crate::{config::BrokerConfig, supervise::Task};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Why a call has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RpcError {
    /// The request is surely not in the queue.
    #[error("the request was not published: {0}")]
    NotPublished(&'static str),
    /// The request is in the queue, or may be. A worker that takes it finishes it.
    #[error("no reply came in time")]
    NoReply,
}

/// A handle on a connection that requests are published on, and that replies come back on.
#[derive(Debug, Clone)]
pub(crate) struct RpcClient {
    publisher: Publisher,
    replies: Arc<PendingReplies>,
}

impl RpcClient {
    /// Starts the publishing task; it ends at `stop`.
    pub(crate) fn start(config: BrokerConfig, stop: CancellationToken) -> Self {
        let replies = Arc::new(PendingReplies::new(QueueNames::new(&config.queue_prefix)));
        let mode = PublishMode::WithReplies(replies.clone());
        let publisher = Publisher::start_with(Task::RpcRequests, config, stop, mode);
        Self { publisher, replies }
    }

    /// How many requests wait in the queue, as of a second ago; `None` while the broker does not answer.
    pub(crate) fn backlog(&self) -> Option<u64> {
        self.replies.backlog().filter(|_| self.publisher.is_publishing())
    }

    /// Why no request can be published, for an operator; `None` while requests can be.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.backlog().is_some() { None } else { self.publisher.problem() }
    }

    /// Publishes a request, and waits for its reply. Sets its `reply_to`, and `id` as its `correlation_id`.
    ///
    /// The request must have a `message_id` from its sender. A connection that is lost after the confirm loses the reply as
    /// well; the same message is then published again, and gets the same reply.
    ///
    /// Once the publishing task has the request, it publishes it even if the caller stops waiting.
    pub(crate) async fn call(
        &self,
        id: Uuid,
        mut message: Outgoing,
        within: Duration,
    ) -> Result<Vec<u8>, RpcError> {
        if self.backlog().is_none() {
            return Err(RpcError::NotPublished("the broker is away, or holds publishers back"));
        }
        let correlation = id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned();
        message.properties =
            message.properties.with_reply_to(DIRECT_REPLY_TO.into()).with_correlation_id(correlation.into());
        let (_registration, reply) = self.replies.register(id);
        let replied = self.until_replied(Arc::new(message), reply);
        tokio::time::timeout(within, replied).await.unwrap_or(Err(RpcError::NoReply))
    }

    async fn until_replied(
        &self,
        message: Arc<Outgoing>,
        mut reply: oneshot::Receiver<Vec<u8>>,
    ) -> Result<Vec<u8>, RpcError> {
        let mut connections = self.replies.connections();
        let mut maybe_queued = false;
        loop {
            let report = tokio::select! {
                biased;
                // The reply may overtake the confirm.
                reply = &mut reply => return reply.map_err(|_| RpcError::NoReply),
                report = self.publisher.publish_reporting(message.clone()) => report,
            };
            let Ok(report) = report else { return Err(RpcError::NoReply) };
            maybe_queued |= report.maybe_queued_before;
            match report.result {
                PublishResult::Routed | PublishResult::Lost | PublishResult::Blamed => maybe_queued = true,
                // The reply to an earlier copy may still come.
                PublishResult::Unroutable | PublishResult::Refused if maybe_queued => {}
                PublishResult::Unroutable => return Err(RpcError::NotPublished("the queue is not there")),
                PublishResult::Refused => return Err(RpcError::NotPublished("the queue is full")),
            }
            tokio::select! {
                reply = &mut reply => return reply.map_err(|_| RpcError::NoReply),
                _ = connections.wait_for(|newest| *newest > report.connection) => {}
            }
        }
    }
}
