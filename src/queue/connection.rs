//! Connecting to the broker, and what an error from it means.

use super::wire::{self, Server};
use crate::config::BrokerConfig;
use lapin::{Connection, ConnectionProperties, ErrorKind, uri::AMQPUri};
use rand::seq::SliceRandom;
use std::time::Duration;
use tracing::warn;

/// Replies of AMQP's that no waiting mends: access refused, not found (the vhost), not allowed, precondition failed.
const FINAL: [u16; 4] = [403, 404, 530, 406];

/// Bytes in a frame, where AMQP_URL does not say `?frame_max=`: RabbitMQ's own default, and not less, as a message's
/// headers must fit in one. Said before the negotiation, it lets the client allocate its buffers of 64 frames once,
/// as pages that are not touched until they are used; else an idle connection would hold 8 MiB.
const FRAME_MAX: u32 = 128 * 1024;

/// How long the broker may take to answer on an open connection.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long one node may take to answer, where AMQP_URL does not say `?connection_timeout=`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// AMQP's reply code where a right is missing.
pub(super) const ACCESS_REFUSED: u16 = 403;
/// The same where there are other nodes to try, in milliseconds: whoever opens the connection has a limit for all of them.
const ONE_OF_SEVERAL: u64 = 4_000;

/// AMQP's reply code for a connection that an operator, or a broker that is stopping, has closed.
const CONNECTION_FORCED: u16 = 320;
/// Seconds without a sign of life after which a connection is dead, where AMQP_URL does not say `?heartbeat=`.
const HEARTBEAT: u16 = 10;

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("the broker refuses: {0}; check the user, password and vhost of AMQP_URL")]
    Refused(String),
    #[error(
        "{queue} cannot be declared: {why}. If it was declared by something else, delete it or set another \
         QUEUE_PREFIX; RabbitMQ 3.10 or later is needed"
    )]
    Queue { queue: String, why: String },
    #[error(
        "AMQP_URL's user lacks the right {right} on {name} ({why}). An operator grants it with `rabbitmqctl \
         set_permissions`; docs/OPERATING.md has the commands"
    )]
    Right { right: Right, name: String, why: String },
    #[error("there is no queue {0}: a worker declares it when it starts; check QUEUE_PREFIX")]
    NoQueue(String),
    #[error("the broker is away ({0}); is it running where AMQP_URL points?")]
    Away(lapin::Error),
}

impl Unusable {
    /// Whether waiting may help: for the broker, for an operator who grants a right, or for a worker that declares a queue.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Right { .. } | Self::NoQueue(_))
    }

    /// A line of ours that is of no use any more.
    pub(super) fn lost(why: &str) -> Self {
        Self::Away(std::io::Error::new(std::io::ErrorKind::NotConnected, why).into())
    }

    pub(super) fn of_declaring(queue: &str, error: lapin::Error) -> Self {
        match reply_code(&error) {
            // A queue with dead letters may only be declared by who may publish them.
            Some(ACCESS_REFUSED) if error.to_string().contains("exchange 'amq.default'") => {
                Self::lacking(Right::Write, "amq.default", &error)
            }
            Some(ACCESS_REFUSED) => Self::lacking(Right::Declare, queue, &error),
            Some(406 | 540) => Self::Queue { queue: queue.to_owned(), why: error.to_string() },
            _ => error.into(),
        }
    }

    /// An error of a publish to a queue, by the default exchange.
    pub fn of_publishing(error: lapin::Error) -> Self {
        Self::of(Right::Write, "amq.default", error)
    }

    /// An error of what needs this right on this queue or exchange.
    pub(super) fn of(right: Right, name: &str, error: lapin::Error) -> Self {
        match reply_code(&error) {
            Some(ACCESS_REFUSED) => Self::lacking(right, name, &error),
            _ => error.into(),
        }
    }

    pub(super) fn lacking(right: Right, name: &str, error: &lapin::Error) -> Self {
        let why = match error.kind() {
            ErrorKind::ProtocolError(error) => error.get_message().to_string(),
            _ => error.to_string(),
        };
        Self::Right { right, name: name.to_owned(), why }
    }
}

/// What RabbitMQ's rights allow on a queue or an exchange (<https://www.rabbitmq.com/docs/access-control>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To declare what is not there.
    Declare,
    Write,
    Read,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Declare => "configure (with read, for a queue that has dead letters)",
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

impl From<lapin::Error> for Unusable {
    fn from(error: lapin::Error) -> Self {
        match reply_code(&error) {
            Some(code) if FINAL.contains(&code) => Self::Refused(error.to_string()),
            _ => Self::Away(error),
        }
    }
}

/// Whether the broker has closed the channel or the connection over what was sent on it; and neither because it is
/// stopping nor because our user lacks a right.
pub(super) fn is_blame(error: &lapin::Error) -> bool {
    reply_code(error).is_some_and(|code| code != CONNECTION_FORCED && code != ACCESS_REFUSED)
}

/// AMQP's reply code, if the broker closed the channel or the connection with one.
pub(super) fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// Opens a connection to one of the nodes; `purpose` is what the broker's operator sees it called.
pub async fn connect(config: &BrokerConfig, purpose: &str) -> Result<Connection, Unusable> {
    connect_and_ask(config, purpose, Server::default()).await
}

/// The same; `server` learns what the broker says of itself.
pub async fn connect_and_ask(
    config: &BrokerConfig,
    purpose: &str,
    server: Server,
) -> Result<Connection, Unusable> {
    let mut nodes = config.nodes.clone();
    nodes.shuffle(&mut rand::rng());
    let mut failure = None;
    for mut uri in nodes {
        if config.nodes.len() > 1 {
            uri.query.connection_timeout.get_or_insert(ONE_OF_SEVERAL);
        }
        let node = format!("{}:{}", uri.authority.host, uri.authority.port);
        match connect_to(uri, purpose, server.clone()).await {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                if config.nodes.len() > 1 {
                    warn!(node, %error, "a node of the broker is not usable");
                }
                // A refusal says more than silence: the nodes have the same users.
                let kept = failure.take().filter(|kept: &Unusable| !kept.passes());
                failure = kept.or(Some(error));
            }
        }
    }
    Err(failure.unwrap_or_else(|| Unusable::lost("AMQP_URL names no node")))
}

/// The same, to one node.
pub async fn connect_to(mut uri: AMQPUri, purpose: &str, server: Server) -> Result<Connection, Unusable> {
    let name = format!("session-invite {purpose} ({})", std::process::id());
    let patience = uri.query.connection_timeout.map_or(CONNECT_TIMEOUT, Duration::from_millis);
    uri.query.frame_max = uri.query.frame_max.or(Some(FRAME_MAX));
    uri.query.heartbeat = uri.query.heartbeat.or(Some(HEARTBEAT));
    let properties = ConnectionProperties::default().with_connection_name(name.as_str().into());
    let connecting = Box::pin(wire::connect(uri, properties, server));
    tokio::time::timeout(patience, connecting).await.map_or_else(
        |_| {
            let why = format!("no answer in {} s", patience.as_secs_f32());
            Err(Unusable::Away(std::io::Error::new(std::io::ErrorKind::TimedOut, why).into()))
        },
        |connected| Ok(connected?),
    )
}
