//! Replies by RabbitMQ's direct reply-to (<https://www.rabbitmq.com/docs/direct-reply-to>): at most once by its nature.
//!
//! The name in a `reply_to` holds the id of a process of the broker's, in base64. Anybody can make one up, and the
//! broker ends the connection over one that it cannot read, or of a node that it does not know. So only authenticated
//! senders share a connection, and only with names as the broker writes them, of nodes that have taken such a reply
//! before. Every other reply is published on a connection of its own.

use super::{
    connection::{Unusable, connect},
    metrics::{self, Discarded},
    publish::{Manner, Outgoing, Published, Publisher, publish_on},
    reply_to::node,
};
use crate::{config::BrokerConfig, seldom::Seldom, supervise::Task, trouble::Trouble};
use lapin::options::ConfirmSelectOptions;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Connections for one reply each that are open at a time, for each kind of sender.
const PLACES: usize = 4;
/// Replies to senders without a credential that wait for such a connection, at most; more are dropped.
const WAITING: usize = 64;
/// How long such a connection may take, with its reply.
const WITHIN: Duration = Duration::from_secs(5);
/// Nodes that are kept in mind; a cluster has a few.
const NODES: usize = 64;

static DROPPED: Seldom = Seldom::new();

/// Whether the reply is for somebody who has shown a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Authenticated,
    Stranger,
    /// It was not looked at, as the request may be what ends the process.
    Unknown,
}

/// A handle on what publishes direct replies.
#[derive(Debug, Clone)]
pub struct DirectReplies(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: BrokerConfig,
    /// For replies to authenticated senders by names of nodes that have taken one.
    publisher: Publisher,
    nodes: Mutex<HashSet<Vec<u8>>>,
    authenticated: Semaphore,
    strangers: Semaphore,
    waiting: Semaphore,
}

impl DirectReplies {
    /// Starts the publishing task; it ends at `stop`.
    pub fn start(config: BrokerConfig, stop: CancellationToken) -> Self {
        let publisher = Publisher::start_with(Task::DirectReplies, config.clone(), stop, Manner::Once);
        Self(Arc::new(Shared {
            config,
            publisher,
            nodes: Mutex::default(),
            authenticated: Semaphore::new(PLACES),
            strangers: Semaphore::new(PLACES),
            waiting: Semaphore::new(WAITING),
        }))
    }

    /// Publishes once, and waits for the broker's answer, whatever it is. A reply that was under way with others on a
    /// line that was lost is published once more.
    pub(super) async fn publish(&self, message: Arc<Outgoing>, sender: Sender) -> Result<(), Trouble> {
        let node = node(&message.queue);
        if self.may_share(node.as_ref(), sender) && self.publish_together(&message).await? {
            return Ok(());
        }
        if !Box::pin(self.publish_alone(message, node, sender)).await? {
            metrics::discarded(Discarded::DirectReply);
            if let Some(replies) = DROPPED.due() {
                tracing::warn!(
                    replies,
                    "direct replies could not be published: nobody is behind their names"
                );
            }
        }
        Ok(())
    }

    /// A stranger never does: whoever got a direct reply once knows a node's name, and can make up the rest.
    fn may_share(&self, node: Option<&Vec<u8>>, sender: Sender) -> bool {
        sender == Sender::Authenticated && node.is_some_and(|node| self.nodes().contains(node))
    }

    /// On the line of authenticated senders: whether that settled it.
    async fn publish_together(&self, message: &Arc<Outgoing>) -> Result<bool, Trouble> {
        let mut published = self.0.publisher.publish(message.clone()).await?;
        if published == Published::Lost {
            published = self.0.publisher.publish(message.clone()).await?;
        }
        let is_settled = !matches!(published, Published::Lost | Published::Blamed);
        if !is_settled {
            // Perhaps over one of them, whose node has left the cluster.
            self.nodes().clear();
        }
        Ok(is_settled)
    }

    fn nodes(&self) -> MutexGuard<'_, HashSet<Vec<u8>>> {
        self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On a connection of its own: whether the broker took it.
    async fn publish_alone(
        &self,
        message: Arc<Outgoing>,
        node: Option<Vec<u8>>,
        sender: Sender,
    ) -> Result<bool, Trouble> {
        let (places, _waiting) = match sender {
            Sender::Authenticated => (&self.0.authenticated, None),
            Sender::Stranger | Sender::Unknown => match self.0.waiting.try_acquire() {
                Ok(waiting) => (&self.0.strangers, Some(waiting)),
                Err(_) => return Ok(false),
            },
        };
        let Ok(_place) = places.acquire().await else { return Ok(false) };
        // Another may have shown meanwhile that its node is there.
        if self.may_share(node.as_ref(), sender) && self.publish_together(&message).await? {
            return Ok(true);
        }
        let is_taken = matches!(timeout(WITHIN, alone(&self.0.config, &message)).await, Ok(Ok(true)));
        // A stranger's word for a node is none: a broker may be slow over those that are not there.
        if let (true, Sender::Authenticated, Some(node)) = (is_taken, sender, node) {
            let mut nodes = self.nodes();
            if nodes.len() >= NODES {
                nodes.clear();
            }
            nodes.insert(node);
        }
        Ok(is_taken)
    }
}

async fn alone(config: &BrokerConfig, message: &Outgoing) -> Result<bool, Unusable> {
    let connection = connect(config, "publisher of one direct reply").await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    // Dropping the connection closes it, and nobody waits for that.
    Ok(publish_on(&channel, message, Uuid::now_v7()).await?.is_ack())
}
