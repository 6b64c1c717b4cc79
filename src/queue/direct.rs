//! Replies by RabbitMQ's direct reply-to (<https://www.rabbitmq.com/docs/direct-reply-to>): at most once by its nature.
//!
//! The name in a `reply_to` holds the id of a process of the broker's, in base64. Anybody can make one up, and the
//! broker ends the connection over one that it cannot read, or of a node that it does not know. So only authenticated
//! senders share a connection, and only with names as the broker writes them, of nodes that have taken such a reply
//! before. Every other reply is published on a connection of its own.

use super::{
    connection::{Unusable, connect},
    publish::{Manner, Outgoing, Published, Publisher, publish_on},
};
use crate::{
    config::BrokerConfig,
    metrics::{self, Discarded},
    seldom::Seldom,
    supervise::Task,
    trouble::Trouble,
};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD as CANONICAL,
};
use lapin::options::ConfirmSelectOptions;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What such a `reply_to` begins with.
pub(super) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Connections for one reply each that are open at a time, for each kind of sender.
const PLACES: usize = 4;
/// Replies to senders without a credential that wait for such a connection, at most; more are dropped.
const WAITING: usize = 64;
/// How long such a connection may take, with its reply.
const WITHIN: Duration = Duration::from_secs(5);
/// Nodes that are kept in mind; a cluster has a few.
const NODES: usize = 64;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

static DROPPED: Seldom = Seldom::new();

/// What a `reply_to` is to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The name of a queue.
    Queue,
    Direct,
    /// It begins as a direct reply's name, and is none.
    Malformed,
}

/// The name alone, or followed by a dot and two base64 parts with a dot between (contract, section 7).
pub(super) fn form(reply_to: &str) -> Form {
    let Some(rest) = reply_to.strip_prefix(DIRECT_REPLY_TO) else { return Form::Queue };
    let parts = rest.strip_prefix('.').and_then(|rest| rest.split_once('.'));
    let is_whole = parts.is_some_and(|(process, key)| decode(process).is_some() && decode(key).is_some());
    if rest.is_empty() || is_whole { Form::Direct } else { Form::Malformed }
}

/// In either alphabet, padded or not; not empty.
fn decode(part: &str) -> Option<Vec<u8>> {
    let decoded = STANDARD.decode(part).or_else(|_| URL_SAFE.decode(part)).ok()?;
    (!decoded.is_empty()).then_some(decoded)
}

/// The broker's node in a direct reply's name: the atom in a process id of Erlang's external term format
/// (<https://www.erlang.org/doc/apps/erts/erl_ext_dist>). `None` for all that the broker would not write itself, as it
/// may fail over that: another alphabet or padding, an older form of the id or the atom, or something after the id.
fn node(reply_to: &str) -> Option<Vec<u8>> {
    let (process, _) = reply_to.strip_prefix(DIRECT_REPLY_TO)?.strip_prefix('.')?.split_once('.')?;
    let term = CANONICAL.decode(process).ok()?;
    // NEW_PID_EXT: the node, and 12 bytes that follow it.
    let (&[131, 88], atom) = term.split_first_chunk()? else { return None };
    let (name, length) = match *atom.first()? {
        // ATOM_UTF8_EXT and SMALL_ATOM_UTF8_EXT.
        118 => (3, usize::from(u16::from_be_bytes([*atom.get(1)?, *atom.get(2)?]))),
        119 => (2, usize::from(*atom.get(1)?)),
        _ => return None,
    };
    let node = atom.get(name..name + length)?;
    (atom.len() == name + length + 12).then(|| node.to_vec())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// As RabbitMQ 3.10 makes one.
    const REAL: &str =
        "amq.rabbitmq.reply-to.g1h2AA1yZXBseUA5MjQ4ODg0AAAIeAAAAABrC/oX.mjVeKtB70cU8N4h0QnYOjw==";

    #[test]
    fn a_direct_name_is_two_base64_parts_or_none() {
        for direct in
            [DIRECT_REPLY_TO, REAL, "amq.rabbitmq.reply-to.g1h2AA==.AAAA", "amq.rabbitmq.reply-to.-_8.AA"]
        {
            assert_eq!(form(direct), Form::Direct, "{direct}");
        }
        for malformed in [
            "amq.rabbitmq.reply-to.",
            "amq.rabbitmq.reply-to..",
            "amq.rabbitmq.reply-to.g1h2AA.x",
            "amq.rabbitmq.reply-to.AAAA",
            "amq.rabbitmq.reply-to.AAAA.",
            "amq.rabbitmq.reply-to..AAAA",
            "amq.rabbitmq.reply-to.AAAA.BB BB",
            "amq.rabbitmq.reply-to.AAAA.BBBB.CCCC",
            "amq.rabbitmq.reply-to.AAAA.BBB\u{e9}",
            "amq.rabbitmq.reply-toAAAA.BBBB",
            "amq.rabbitmq.reply-to-mine",
        ] {
            assert_eq!(form(malformed), Form::Malformed, "{malformed}");
        }
        for queue in ["", "crm.replies", "amq.rabbitmq.reply", "AMQ.RABBITMQ.REPLY-TO.AAAA.BBBB"] {
            assert_eq!(form(queue), Form::Queue, "{queue}");
        }
    }

    #[test]
    fn a_node_is_read_from_a_whole_process_id_only() {
        assert_eq!(node(REAL).as_deref(), Some(&b"reply@9248884"[..]));
        let with = |term: &[u8]| node(&format!("{DIRECT_REPLY_TO}.{}.AAAA", STANDARD.encode(term)));
        assert_eq!(with(b"\x83Xv\0\x01a000000000000").as_deref(), Some(&b"a"[..]));
        assert_eq!(with(b"\x83Xw\x01a000000000000").as_deref(), Some(&b"a"[..]));
        for broken in [
            &b""[..],
            b"\x83",
            b"\x83X",
            b"\x83Xv",
            b"\x83Xv\xff\xffa",
            b"\x83Xw\x01a00000000000",
            b"\x83Xw\x01a0000000000000",
            b"\x83a\x05",
            // Forms that older brokers wrote, and that those of today fail on.
            b"\x83gd\0\x01a000000000",
            b"\x83gw\x01a000000000",
            b"\x83Xd\0\x01a000000000000",
            b"\x83Xs\x01a000000000000",
        ] {
            assert_eq!(with(broken), None, "{broken:?}");
        }
        // A plus and a slash, and a length that needs padding.
        let real = b"\x83Xw\x07ab\xfb\xef\xbe\xff\xff000000000000";
        let standard = STANDARD.encode(real);
        assert!(standard.contains('+') && standard.contains('/') && standard.ends_with('='), "{standard}");
        let named = |process: &str| node(&format!("{DIRECT_REPLY_TO}.{process}.AAAA"));
        assert!(named(&standard).is_some());
        assert_eq!(named(standard.trim_end_matches('=')), None);
        assert_eq!(named(&standard.replace('+', "-").replace('/', "_")), None);
    }
}
