//! Of a server with several nodes: which one is tried first, and what is reported of each.

use rand::seq::SliceRandom;
use serde::Serialize;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use utoipa::ToSchema;

/// A node that failed longer ago than this has its turn again.
const FAILED_FOR: Duration = Duration::from_mins(1);

/// The order in which the nodes of one server are tried: random, and those that have just failed last.
#[derive(Debug, Default)]
pub(crate) struct NodeOrder(Mutex<HashMap<String, Instant>>);

impl NodeOrder {
    /// Arranges nodes that have these names.
    pub(crate) fn arrange<T>(&self, mut nodes: Vec<T>, name: impl Fn(&T) -> String) -> Vec<T> {
        nodes.shuffle(&mut rand::rng());
        let mut failed = self.lock();
        failed.retain(|_, at| at.elapsed() < FAILED_FOR);
        // The sort is stable. `None` comes first, and then the node that failed first.
        nodes.sort_by_key(|node| failed.get(&name(node)).copied());
        nodes
    }

    /// A connection to the node failed, or was lost.
    pub(crate) fn failed(&self, name: &str) {
        self.lock().insert(name.to_owned(), Instant::now());
    }

    /// A connection to the node works.
    pub(crate) fn works(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server that a node belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NodeServer {
    Database,
    Broker,
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NodeState {
    /// The database's node takes writes.
    TakesWrites,
    /// The database's node follows another one.
    Standby,
    /// The database's node is a primary with `default_transaction_read_only`.
    ReadOnly,
    /// The broker's node answers.
    Answers,
    /// The node cannot be used.
    Away,
    /// Nothing has connected to the node yet.
    Unknown,
}

impl NodeState {
    /// In words.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::TakesWrites => "takes writes",
            Self::Standby => "a standby",
            Self::ReadOnly => "read-only",
            Self::Answers => "answers",
            Self::Away => "away",
            Self::Unknown => "not tried yet",
        }
    }
}

/// A node, as `/readyz` reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(example = json!({"name": "db2.internal:5432", "of": "database", "state": "away",
    "reason": "no answer within 3 s"}))]
pub(crate) struct NodeReport {
    /// Its host and port, or the folder of its socket.
    pub name: String,
    /// Its server.
    pub of: NodeServer,
    pub state: NodeState,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_random_and_a_node_that_has_just_failed_is_last() {
        let order = NodeOrder::default();
        let arranged = || order.arrange(vec!["a", "b", "c"], |name| (*name).to_owned());
        let firsts: Vec<_> = (0..200).map(|_| arranged()[0]).collect();
        assert!(["a", "b", "c"].iter().all(|name| firsts.contains(name)));
        order.failed("b");
        order.failed("a");
        for _ in 0..20 {
            assert_eq!(arranged(), ["c", "b", "a"]);
        }
        order.works("b");
        for _ in 0..20 {
            assert_eq!(arranged()[2], "a");
        }
    }
}
