//! Connecting to the broker, and what an error from it means.

use super::{
    nodes,
    wire::{self, BrokerVersion},
};
use crate::config::{BrokerConfig, broker_node_name};
use lapin::{Connection, ConnectionProperties, ErrorKind, uri::AMQPUri};
use std::time::Duration;

/// AMQP's reply codes for which waiting does not help: access refused, not found (the vhost), not allowed, precondition
/// failed.
const PERMANENT: [u16; 4] = [403, 404, 530, 406];

/// Bytes in a frame, where AMQP_URL has no `?frame_max=`: RabbitMQ's own default, and not less, as a message's headers must
/// fit in one frame. It is set before the negotiation, so that lapin allocates its buffers of 64 frames once, as pages that
/// are not touched until they are used. Otherwise an idle connection would hold 8 MiB.
const FRAME_MAX: u32 = 128 * 1024;

/// How long the broker may take to answer on an open connection.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long one node may take to answer, where AMQP_URL has no `?connection_timeout=`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to close.
const CLOSES_WITHIN: Duration = Duration::from_secs(2);
/// How long a node may leave a call unanswered where there are other nodes.
pub(super) const NODE_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// The same where there is no other one, for a command.
const ANSWERS_ALONE_WITHIN: Duration = Duration::from_secs(30);
/// AMQP's reply code for a missing permission.
pub(super) const ACCESS_REFUSED: u16 = 403;
/// AMQP's reply code for a connection that an operator, or a broker that is stopping, has closed.
const CONNECTION_FORCED: u16 = 320;
/// AMQP's reply codes for a queue or an exchange: it is not there; it was declared with other arguments.
const NOT_FOUND: u16 = 404;
pub(super) const PRECONDITION_FAILED: u16 = 406;
/// AMQP's reply code for an argument that this broker does not know.
const NOT_IMPLEMENTED: u16 = 540;
/// Seconds without a frame from the broker after which a connection is dead, where AMQP_URL has no `?heartbeat=`.
const HEARTBEAT: u16 = 10;

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("the broker refuses: {0}; check the user, password and vhost of AMQP_URL")]
    Refused(String),
    #[error(
        "{queue} cannot be declared: {why}. If something else declared it, set another QUEUE_PREFIX, which leaves it alone; \
         RabbitMQ 3.10 or later is needed"
    )]
    Declaration { queue: String, why: String },
    #[error(
        "AMQP_URL's user lacks the permission {permission} on {name} ({why}). An operator grants it with `rabbitmqctl \
         set_permissions`; docs/OPERATING.md has the commands"
    )]
    Permission { permission: BrokerPermission, name: String, why: String },
    #[error("there is no queue {0}: a worker declares it when it starts; check QUEUE_PREFIX")]
    MissingQueue(String),
    #[error(
        "the exchange {0} is gone; it is declared again now, and its subscribers have to bind to it again"
    )]
    MissingExchange(String),
    #[error("the broker is away ({0}); is it running where AMQP_URL points?")]
    Unavailable(lapin::Error),
    #[error(
        "the broker runs, and one of its queues does not run ({0}); `rabbitmqctl list_queues name state` shows it. Start the nodes \
         that have it, and restart the node of a queue that has crashed"
    )]
    QueueDown(lapin::Error),
    #[error(
        "the broker's node {node} belongs to another cluster ({cluster:?}, and this process began with {ours:?}): the nodes \
         of AMQP_URL have to be one cluster"
    )]
    OtherCluster { node: String, cluster: String, ours: String },
    /// A cause for each of several nodes.
    #[error("no node of the broker can be used: {0}; is it running where AMQP_URL points?")]
    NoNode(String),
}

impl BrokerError {
    /// Whether waiting may help: for the broker, for an operator who grants a permission, or for a worker that declares a
    /// queue.
    pub fn is_temporary(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Declaration { .. })
    }

    /// Whether the cause is the broker, and not what it was asked for.
    pub(super) fn is_away(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::QueueDown(_) | Self::OtherCluster { .. } | Self::NoNode(_)
        )
    }

    /// The cause alone, for a text that names the node already.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Unavailable(error) => error.to_string(),
            Self::OtherCluster { cluster, ours, .. } => {
                format!("it belongs to another cluster ({cluster:?}, and this process began with {ours:?})")
            }
            other => other.to_string(),
        }
    }

    /// Our connection is of no use any more.
    pub(super) fn lost(why: &str) -> Self {
        Self::Unavailable(std::io::Error::new(std::io::ErrorKind::NotConnected, why).into())
    }

    pub(super) fn of_declaring(queue: &str, error: lapin::Error) -> Self {
        match reply_code(&error) {
            // To declare a queue with dead letters, a user needs the permission to publish them.
            Some(ACCESS_REFUSED) if error.to_string().contains("exchange 'amq.default'") => {
                Self::lacking(BrokerPermission::Write, "amq.default", &error)
            }
            Some(ACCESS_REFUSED) => Self::lacking(BrokerPermission::Configure, queue, &error),
            Some(PRECONDITION_FAILED | NOT_IMPLEMENTED) => {
                Self::Declaration { queue: queue.to_owned(), why: error.to_string() }
            }
            _ => error.into(),
        }
    }

    /// The error of a publish to a queue, through the default exchange.
    pub fn of_publishing(error: lapin::Error) -> Self {
        Self::of(BrokerPermission::Write, "amq.default", error)
    }

    /// The error of a call that needs this permission on this queue or exchange.
    pub(super) fn of(permission: BrokerPermission, name: &str, error: lapin::Error) -> Self {
        match reply_code(&error) {
            Some(ACCESS_REFUSED) => Self::lacking(permission, name, &error),
            Some(NOT_FOUND) if permission == BrokerPermission::Write => {
                Self::MissingExchange(name.to_owned())
            }
            _ => error.into(),
        }
    }

    fn lacking(permission: BrokerPermission, name: &str, error: &lapin::Error) -> Self {
        let why = match error.kind() {
            ErrorKind::ProtocolError(error) => error.get_message().to_string(),
            _ => error.to_string(),
        };
        Self::Permission { permission, name: name.to_owned(), why }
    }
}

/// RabbitMQ's permissions on a queue or an exchange (<https://www.rabbitmq.com/docs/access-control>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerPermission {
    /// To declare a queue or an exchange that is not there.
    Configure,
    Write,
    Read,
}

impl std::fmt::Display for BrokerPermission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Configure => "configure (with read, for a queue that has dead letters)",
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        match reply_code(&error) {
            _ if is_queue_down(&error) => Self::QueueDown(error),
            Some(code) if PERMANENT.contains(&code) => Self::Refused(error.to_string()),
            _ => Self::Unavailable(error),
        }
    }
}

/// Whether the broker has closed the channel or the connection over what was sent on it. It has not if it is stopping, or
/// if our user lacks a permission.
pub(super) fn is_blame(error: &lapin::Error) -> bool {
    reply_code(error).is_some_and(|code| code != CONNECTION_FORCED && code != ACCESS_REFUSED)
}

/// Whether the queue is there, and its node or its process is not, as for a moment after a start. RabbitMQ's code for that is
/// 404 too: only its text tells (`rabbit_misc:absent` in its source).
pub(super) fn is_queue_down(error: &lapin::Error) -> bool {
    const TEXTS: [&str; 4] =
        ["is down or inaccessible", "stopped by supervisor", "failed to restart", "due to timeout"];
    reply_code(error) == Some(NOT_FOUND) && {
        let text = error.to_string();
        TEXTS.iter().any(|part| text.contains(part))
    }
}

/// Whether there is no such queue or exchange.
pub(super) fn is_missing(error: &lapin::Error) -> bool {
    reply_code(error) == Some(NOT_FOUND) && !is_queue_down(error)
}

/// AMQP's reply code, if the broker closed the channel or the connection with one.
pub(super) fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// A connection, with the node that it leads to and what that node says of itself.
#[derive(Debug)]
pub(crate) struct BrokerConnection {
    pub connection: Connection,
    pub node: String,
    pub broker: BrokerVersion,
}

/// Opens a connection to one of the nodes. `purpose` is in the name under which the broker shows the connection.
pub(crate) async fn connect(config: &BrokerConfig, purpose: &str) -> Result<Connection, BrokerError> {
    Ok(connect_to_some_node(config, purpose).await?.connection)
}

/// The same, with the node. Tries the nodes in random order, each with a time limit, and one that has just failed last.
pub(crate) async fn connect_to_some_node(
    config: &BrokerConfig,
    purpose: &str,
) -> Result<BrokerConnection, BrokerError> {
    let mut failures = Vec::new();
    for uri in nodes::arrange(config) {
        let (node, broker) = (broker_node_name(&uri), BrokerVersion::default());
        let error = match connect_to_node(nodes::with_limit(config, &uri), purpose, broker.clone()).await {
            Err(error) => error,
            Ok(connection) => match check_cluster(config, &node, &broker) {
                Ok(()) => return Ok(BrokerConnection { connection, node, broker }),
                Err(error) => {
                    close_connection(&connection).await;
                    error
                }
            },
        };
        failures.push((node, error));
    }
    // A refusal is reported rather than a node that does not answer: all nodes have the same users.
    if let Some(refusal) = failures.iter().position(|(_, error)| !error.is_temporary()) {
        return Err(failures.swap_remove(refusal).1);
    }
    match failures.len() {
        0 => Err(BrokerError::lost("AMQP_URL names no node")),
        1 => Err(failures.remove(0).1),
        _ => {
            // In the order of the names, so that the same causes are the same text.
            failures.sort_by(|(a, _), (b, _)| a.cmp(b));
            let reasons = failures.iter().map(|(node, error)| format!("{node}: {}", error.reason()));
            Err(BrokerError::NoNode(reasons.collect::<Vec<_>>().join("; ")))
        }
    }
}

/// Connects, and does `work`, which may be repeated: on another node where one leaves it unanswered.
pub(crate) async fn on_answering_node<T, E: From<BrokerError>>(
    config: &BrokerConfig,
    purpose: &str,
    work: impl AsyncFn(&BrokerConnection) -> Result<T, E>,
) -> Result<(BrokerConnection, T), E> {
    for _ in &config.nodes {
        let opened = connect_to_some_node(config, purpose).await?;
        if let Some(done) = answer_of_node(config, &opened.node, work(&opened)).await {
            return Ok((opened, done?));
        }
    }
    Err(no_node_answers(config).into())
}

/// What a node answers, if it does in its time. If not, other nodes are used before it.
pub(super) async fn answer_of_node<T>(
    config: &BrokerConfig,
    node: &str,
    work: impl Future<Output = T>,
) -> Option<T> {
    let answer = tokio::time::timeout(answer_limit(config), work).await.ok();
    if answer.is_none() {
        nodes::silent(node, "it takes logins, and answers nothing else");
    }
    answer
}

pub(super) fn no_node_answers(config: &BrokerConfig) -> BrokerError {
    let limit = answer_limit(config).as_secs();
    BrokerError::lost(&format!("it takes logins, and answers nothing else within {limit} s"))
}

fn answer_limit(config: &BrokerConfig) -> Duration {
    node_answers_within(config).unwrap_or(ANSWERS_ALONE_WITHIN)
}

/// Closes a connection whose work is done. It takes no more than two seconds, and its errors are of no use: lapin makes one of a
/// channel that is still being closed, as one is that goes out of scope.
pub(crate) async fn close_connection(connection: &Connection) {
    let _ = tokio::time::timeout(CLOSES_WITHIN, connection.close(200, "done".into())).await;
}

/// Refuses a node of another cluster than the one that the process connected to first.
pub(super) fn check_cluster(
    config: &BrokerConfig,
    node: &str,
    broker: &BrokerVersion,
) -> Result<(), BrokerError> {
    let Some(ours) = nodes::other_cluster(config, broker) else { return Ok(()) };
    let cluster = broker.cluster().unwrap_or_default().to_owned();
    let error = BrokerError::OtherCluster { node: node.to_owned(), cluster, ours: ours.to_owned() };
    nodes::refused(node, &error.reason());
    Err(error)
}

/// How long a node may leave a call unanswered; `None` if there is no other one to use.
pub(super) fn node_answers_within(config: &BrokerConfig) -> Option<Duration> {
    (config.nodes.len() > 1).then_some(NODE_ANSWERS_WITHIN)
}

/// Opens a connection to one node.
pub async fn connect_to_node(
    mut uri: AMQPUri,
    purpose: &str,
    version: BrokerVersion,
) -> Result<Connection, BrokerError> {
    let name = format!("session-invite {purpose} ({})", std::process::id());
    let node = broker_node_name(&uri);
    let patience = uri.query.connection_timeout.map_or(CONNECT_TIMEOUT, Duration::from_millis);
    uri.query.frame_max = uri.query.frame_max.or(Some(FRAME_MAX));
    uri.query.heartbeat = uri.query.heartbeat.or(Some(HEARTBEAT));
    let properties = ConnectionProperties::default().with_connection_name(name.as_str().into());
    let connecting = Box::pin(wire::connect(uri, properties, version));
    let connected = tokio::time::timeout(patience, connecting).await.unwrap_or_else(|_| {
        let why = format!("no answer in {} s", patience.as_secs_f32());
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why).into())
    });
    match connected.map_err(BrokerError::from) {
        Ok(connection) => {
            nodes::connected(&node, connection.status().clone());
            Ok(connection)
        }
        Err(error) => {
            nodes::refused(&node, &error.reason());
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::protocol::{AMQPError, AMQPSoftError};

    #[test]
    fn a_queue_whose_process_is_not_there_is_neither_missing_nor_a_refusal() {
        let not_found = |text: &str| {
            lapin::Error::from(ErrorKind::ProtocolError(AMQPError::new(
                AMQPSoftError::NOTFOUND.into(),
                text.into(),
            )))
        };
        for text in [
            "NOT_FOUND - home node 'rabbit@a' of durable queue 'q' in vhost '/' is down or inaccessible",
            "NOT_FOUND - queue 'q' in vhost '/' process is stopped by supervisor",
            "NOT_FOUND - queue 'q' in vhost '/' has crashed and failed to restart",
            "NOT_FOUND - failed to perform operation on queue 'q' in vhost '/' due to timeout",
        ] {
            assert!(!is_missing(&not_found(text)), "{text}");
            let error = BrokerError::of_declaring("q", not_found(text));
            assert!(matches!(error, BrokerError::QueueDown(_)) && error.is_away(), "{error}");
            assert!(error.is_temporary(), "{error}");
        }
        let missing = not_found("NOT_FOUND - no queue 'q' in vhost '/'");
        assert!(is_missing(&missing) && !BrokerError::from(missing).is_temporary());
    }
}
