//! Replies by RabbitMQ's direct reply-to (<https://www.rabbitmq.com/docs/direct-reply-to>), which delivers at most once.
//!
//! The name in a `reply_to` holds the id of an Erlang process of the broker, in base64. Any sender can invent one. The
//! broker closes the connection over a name that it cannot read, or whose node it does not know. So a reply goes over the
//! shared connection only if its sender is authenticated, its name has the broker's own form, and its node has taken such
//! a reply before. Every other reply is published on a connection of its own.

use super::{
    connection::{BrokerError, connect},
    metrics::{self, DiscardKind},
    publish::{Outgoing, PublishMode, PublishResult, Publisher, publish_on},
    reply_to::node,
};
use crate::{config::BrokerConfig, log_throttle::LogThrottle, supervise::Task, trouble::Trouble};
use lapin::options::ConfirmSelectOptions;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Connections for one reply each that are open at a time, for authenticated senders and for others.
const CONNECTIONS: usize = 4;
/// Replies to other senders that wait for such a connection, at most; more are dropped.
const WAITING: usize = 64;
/// How long such a connection may take, with its reply.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(5);
/// Nodes that are remembered, at most; a cluster has a few.
const NODES: usize = 64;

static DROPPED: LogThrottle = LogThrottle::new();

/// Whether the sender has proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SenderKind {
    Authenticated,
    /// Without a credential that proves it.
    Stranger,
    /// The credential was not checked, as the request may be what ends the process.
    Unknown,
}

/// A handle on the publisher of direct replies.
#[derive(Debug, Clone)]
pub(crate) struct DirectReplies(Arc<DirectReplyPublisher>);

#[derive(Debug)]
struct DirectReplyPublisher {
    config: BrokerConfig,
    /// The shared connection.
    publisher: Publisher,
    /// Nodes of the broker that have taken a direct reply.
    nodes: Mutex<HashSet<Vec<u8>>>,
    /// Permits for a connection of a reply's own.
    authenticated: Semaphore,
    strangers: Semaphore,
    /// Permits to wait for one of the strangers' connections.
    waiting: Semaphore,
}

impl DirectReplies {
    /// Starts the publishing task; it ends at `stop`.
    pub(crate) fn start(config: BrokerConfig, stop: CancellationToken) -> Self {
        let publisher = Publisher::start_with(Task::DirectReplies, config.clone(), stop, PublishMode::Once);
        Self(Arc::new(DirectReplyPublisher {
            config,
            publisher,
            nodes: Mutex::default(),
            authenticated: Semaphore::new(CONNECTIONS),
            strangers: Semaphore::new(CONNECTIONS),
            waiting: Semaphore::new(WAITING),
        }))
    }

    /// Publishes once, and waits for the broker's answer. A reply that was in flight on a lost connection, together with
    /// others, is published once more.
    pub(super) async fn publish(&self, message: Arc<Outgoing>, sender: SenderKind) -> Result<(), Trouble> {
        let node = node(&message.queue);
        if self.may_share(node.as_ref(), sender) && self.publish_shared(&message).await? {
            return Ok(());
        }
        if !Box::pin(self.publish_alone(message, node, sender)).await? {
            metrics::discarded(DiscardKind::DirectReply);
            if let Some(replies) = DROPPED.due() {
                tracing::warn!(
                    replies,
                    "direct replies could not be published: no requester is connected under their names"
                );
            }
        }
        Ok(())
    }

    /// A stranger never may: a sender that once got a direct reply knows a node's name, and can invent the rest.
    fn may_share(&self, node: Option<&Vec<u8>>, sender: SenderKind) -> bool {
        sender == SenderKind::Authenticated && node.is_some_and(|node| self.nodes().contains(node))
    }

    /// Publishes on the shared connection. Whether the broker has answered.
    async fn publish_shared(&self, message: &Arc<Outgoing>) -> Result<bool, Trouble> {
        let mut result = self.0.publisher.publish(message.clone()).await?;
        if result == PublishResult::Lost {
            result = self.0.publisher.publish(message.clone()).await?;
        }
        let is_answered = !matches!(result, PublishResult::Lost | PublishResult::Blamed);
        if !is_answered {
            // Perhaps because one of these nodes has left the cluster.
            self.nodes().clear();
        }
        Ok(is_answered)
    }

    fn nodes(&self) -> MutexGuard<'_, HashSet<Vec<u8>>> {
        self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes on a connection of the reply's own. Whether the broker took it.
    async fn publish_alone(
        &self,
        message: Arc<Outgoing>,
        node: Option<Vec<u8>>,
        sender: SenderKind,
    ) -> Result<bool, Trouble> {
        let (connections, _waiting) = match sender {
            SenderKind::Authenticated => (&self.0.authenticated, None),
            SenderKind::Stranger | SenderKind::Unknown => match self.0.waiting.try_acquire() {
                Ok(waiting) => (&self.0.strangers, Some(waiting)),
                Err(_) => return Ok(false),
            },
        };
        let Ok(_permit) = connections.acquire().await else { return Ok(false) };
        // Meanwhile, another reply may have shown that its node takes them.
        if self.may_share(node.as_ref(), sender) && self.publish_shared(&message).await? {
            return Ok(true);
        }
        let publishing = connect_and_publish(&self.0.config, &message);
        let is_taken = matches!(timeout(PUBLISHED_WITHIN, publishing).await, Ok(Ok(true)));
        // Not from strangers, who may invent nodes: the broker may be slow to publish to a node that does not exist.
        if let (true, SenderKind::Authenticated, Some(node)) = (is_taken, sender, node) {
            let mut nodes = self.nodes();
            if nodes.len() >= NODES {
                nodes.clear();
            }
            nodes.insert(node);
        }
        Ok(is_taken)
    }
}

async fn connect_and_publish(config: &BrokerConfig, message: &Outgoing) -> Result<bool, BrokerError> {
    let connection = connect(config, "publisher of one direct reply").await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    // Dropping the connection closes it, without waiting for that.
    Ok(publish_on(&channel, message, Uuid::now_v7()).await?.is_ack())
}
