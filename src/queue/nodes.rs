//! The broker's nodes: which one the next connection tries first, what is known of each, and that all are of one cluster.
//!
//! Known is what our own connections have found.

use super::wire::BrokerVersion;
use crate::{
    config::{BrokerConfig, broker_node_name},
    nodes::{NodeOrder, NodeReport, NodeServer, NodeState},
};
use lapin::{ConnectionStatus, uri::AMQPUri};
use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// How often a node that takes TCP connections is also logged in to. RabbitMQ logs each login, and no bare TCP connection.
const LOGS_IN_EVERY: Duration = Duration::from_mins(1);
/// Milliseconds that one node may take to answer, where there are other nodes.
const CONNECT_TIMEOUT_OF_SEVERAL: u64 = 3_000;
/// How long a node counts as away that let a call go unanswered: it may take logins although it is cut off from its cluster.
const SILENT_FOR: Duration = Duration::from_secs(30);

/// The process's one broker.
static BROKER: LazyLock<KnownBroker> = LazyLock::new(KnownBroker::default);

#[derive(Default)]
struct KnownBroker {
    order: NodeOrder,
    /// The name of the cluster that the process connected to first.
    cluster: OnceLock<String>,
    /// In the order of AMQP_URL.
    names: OnceLock<Vec<String>>,
    nodes: Mutex<HashMap<String, KnownNode>>,
}

/// What is known of one node.
#[derive(Default)]
struct KnownNode {
    /// Our connections to it.
    connections: Vec<ConnectionStatus>,
    /// Why it cannot be used; `None` if a connection to it worked last.
    away: Option<String>,
    silent_until: Option<Instant>,
    logged_in_at: Option<Instant>,
    /// Whether the log has that it is away.
    is_logged: bool,
}

impl KnownNode {
    fn is_connected(&mut self) -> bool {
        self.connections.retain(ConnectionStatus::connected);
        !self.connections.is_empty()
    }

    fn is_silent(&self) -> bool {
        self.silent_until.is_some_and(|until| Instant::now() < until)
    }

    fn report(&mut self, name: &str) -> NodeReport {
        let is_connected = self.is_connected() && !self.is_silent();
        let (state, reason) = match &self.away {
            _ if is_connected => (NodeState::Answers, None),
            Some(why) => (NodeState::Away, Some(why.clone())),
            None if self.logged_in_at.is_some() => (NodeState::Answers, None),
            None => (NodeState::Unknown, None),
        };
        NodeReport { name: name.to_owned(), of: NodeServer::Broker, state, reason }
    }
}

fn known() -> MutexGuard<'static, HashMap<String, KnownNode>> {
    BROKER.nodes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The nodes in the order in which a connection tries them.
pub(super) fn arrange(config: &BrokerConfig) -> Vec<AMQPUri> {
    BROKER.order.arrange(config.nodes.clone(), broker_node_name)
}

/// A connection to the node is open.
pub(super) fn connected(name: &str, status: ConnectionStatus) {
    BROKER.order.works(name);
    let mut nodes = known();
    let node = nodes.entry(name.to_owned()).or_default();
    node.connections.retain(ConnectionStatus::connected);
    node.connections.push(status);
    node.logged_in_at = Some(Instant::now());
    if !node.is_silent() {
        node.away = None;
    }
}

/// No connection to the node could be opened.
pub(super) fn refused(name: &str, why: &str) {
    BROKER.order.failed(name);
    known().entry(name.to_owned()).or_default().away = Some(why.to_owned());
}

/// A connection to the node was lost. The next one tries the other nodes first.
pub(super) fn lost(name: &str) {
    BROKER.order.failed(name);
}

/// The node let a call go unanswered, on a connection that is open.
pub(super) fn silent(name: &str, why: &str) {
    BROKER.order.failed(name);
    let mut nodes = known();
    let node = nodes.entry(name.to_owned()).or_default();
    node.away = Some(why.to_owned());
    node.silent_until = Some(Instant::now() + SILENT_FOR);
}

/// The node has carried out what it was asked for.
pub(super) fn works(name: &str) {
    let mut nodes = known();
    let node = nodes.entry(name.to_owned()).or_default();
    (node.away, node.silent_until) = (None, None);
}

/// The name of the cluster that the process connected to first, if this node belongs to another one.
pub(super) fn other_cluster(config: &BrokerConfig, broker: &BrokerVersion) -> Option<&'static str> {
    let cluster = broker.cluster().filter(|_| config.nodes.len() > 1)?;
    let ours = BROKER.cluster.get_or_init(|| cluster.to_owned());
    (ours != cluster).then_some(ours.as_str())
}

/// Each node of `AMQP_URL`, and its state.
pub(crate) fn broker_nodes() -> Vec<NodeReport> {
    let mut nodes = known();
    let names = BROKER.names.get().map(Vec::as_slice).unwrap_or_default();
    names.iter().map(|name| nodes.entry(name.clone()).or_default().report(name)).collect()
}

/// The nodes that are away, for an operator, where there are several.
pub(crate) fn broker_node_problems() -> Vec<String> {
    let nodes = broker_nodes();
    let away = nodes.iter().filter(|node| node.state == NodeState::Away && nodes.len() > 1);
    away.map(|node| {
        format!("the broker's node {} is away: {}", node.name, node.reason.as_deref().unwrap_or_default())
    })
    .collect()
}

/// Keeps the names of all nodes, for [`broker_nodes`].
pub(super) fn remember(config: &BrokerConfig) {
    let _ = BROKER.names.set(config.nodes.iter().map(broker_node_name).collect());
}

/// What the next look at a node does.
pub(super) enum NextLook {
    /// A connection shows the node's state.
    None,
    Tcp,
    LogIn,
}

pub(super) fn next_look(name: &str) -> NextLook {
    let mut nodes = known();
    let node = nodes.entry(name.to_owned()).or_default();
    if node.is_connected() || node.is_silent() {
        NextLook::None
    } else if node.away.is_some() || node.logged_in_at.is_none_or(|at| at.elapsed() > LOGS_IN_EVERY) {
        NextLook::LogIn
    } else {
        NextLook::Tcp
    }
}

/// The node's URL, with a time limit for connecting where there are other nodes.
pub(super) fn with_limit(config: &BrokerConfig, node: &AMQPUri) -> AMQPUri {
    let mut node = node.clone();
    if config.nodes.len() > 1 {
        node.query.connection_timeout.get_or_insert(CONNECT_TIMEOUT_OF_SEVERAL);
    }
    node
}

/// Logs each node that is away since the last call, or answers again.
pub(super) fn log_changes() {
    for (name, node) in known().iter_mut() {
        let report = node.report(name);
        let is_away = report.state == NodeState::Away;
        match (is_away, node.is_logged) {
            (true, false) => {
                tracing::warn!(node = name, reason = report.reason, "a node of the broker is away");
            }
            (false, true) => tracing::info!(node = name, "a node of the broker answers again"),
            _ => {}
        }
        node.is_logged = is_away;
    }
}
