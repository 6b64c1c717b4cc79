//! What a node of the database is, and whether it belongs to the cluster that this process uses.

use crate::nodes::{NodeOrder, NodeState};
use sqlx::{AssertSqlSafe, PgConnection};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// The timeline of a server that takes writes, as an expression of SQL. It changes when a standby is promoted or an older state
/// is restored.
pub(crate) const TIMELINE: &str =
    "('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int";

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeFacts {
    pub state: NodeState,
    /// The cluster's, which a standby has from its primary; `None` where the role may not read it.
    pub system: Option<String>,
    /// Of a primary. Each promotion begins a higher one.
    pub timeline: Option<i32>,
    /// Seconds by which its clock is ahead of this machine's.
    pub clock_ahead: f64,
}

#[derive(sqlx::FromRow)]
struct NodeMode {
    standby: bool,
    read_only: bool,
    clock: f64,
}

impl NodeMode {
    async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        sqlx::query_as(
            "select pg_is_in_recovery() as standby, current_setting('transaction_read_only') = 'on' as read_only,
                    extract(epoch from clock_timestamp())::float8 as clock",
        )
        .fetch_one(connection)
        .await
    }

    fn state(&self) -> NodeState {
        match (self.standby, self.read_only) {
            (true, _) => NodeState::Standby,
            (_, true) => NodeState::ReadOnly,
            _ => NodeState::TakesWrites,
        }
    }
}

/// The state of the connection's node.
pub(super) async fn state(connection: &mut PgConnection) -> Result<NodeState, sqlx::Error> {
    Ok(NodeMode::read(connection).await?.state())
}

impl NodeFacts {
    pub(super) async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let before = unix_time();
        let mode = NodeMode::read(connection).await?;
        let here = f64::midpoint(before, unix_time());
        // The role may lack the right to the functions, and a promotion may come between the statements.
        let system = sqlx::query_scalar("select system_identifier::text from pg_control_system()");
        let system = known(system.fetch_one(&mut *connection).await)?;
        let timeline = if mode.standby {
            None
        } else {
            let timeline = sqlx::query_scalar(AssertSqlSafe(format!("select {TIMELINE}")));
            known(timeline.fetch_one(&mut *connection).await)?
        };
        Ok(Self { state: mode.state(), system, timeline, clock_ahead: mode.clock - here })
    }

    /// Why no statement may go to this node; `None` if it may.
    pub(super) const fn why_no_writes(state: NodeState) -> Option<&'static str> {
        match state {
            NodeState::Standby => Some(
                "it is a standby and takes no writes: let DATABASE_URL name the primary too, or promote it with select \
                 pg_promote()",
            ),
            NodeState::ReadOnly => Some("it is read-only (default_transaction_read_only is on)"),
            _ => None,
        }
    }
}

/// A value that the server may refuse to show.
fn known<T>(read: Result<T, sqlx::Error>) -> Result<Option<T>, sqlx::Error> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(sqlx::Error::Database(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What the process knows of a database with several nodes. All its connections share it.
#[derive(Debug, Default)]
pub(super) struct KnownCluster {
    pub order: NodeOrder,
    identity: Mutex<ClusterIdentity>,
}

#[derive(Debug, Default)]
struct ClusterIdentity {
    /// The system identifier of the node that was used first.
    system: Option<String>,
    /// Of each system identifier, the highest timeline, and the node that has it.
    newest: HashMap<String, (i32, String)>,
}

impl KnownCluster {
    /// Remembers the timeline of a node that takes writes.
    pub(super) fn learn(&self, node: &str, facts: &NodeFacts) {
        let (Some(system), Some(timeline)) = (&facts.system, facts.timeline) else { return };
        let mut identity = self.lock();
        if identity.newest.get(system).is_none_or(|(newest, _)| *newest < timeline) {
            identity.newest.insert(system.clone(), (timeline, node.to_owned()));
        }
    }

    /// Why the node is not used, although it may take writes: it belongs to another cluster, or is an old primary.
    pub(super) fn objection(&self, facts: &NodeFacts) -> Option<String> {
        let system = facts.system.as_ref()?;
        let identity = self.lock();
        if let Some(ours) = identity.system.as_ref().filter(|ours| *ours != system) {
            return Some(format!(
                "it belongs to another cluster (system identifier {system}, and this process began with {ours})"
            ));
        }
        let (newest, node) = identity.newest.get(system)?;
        let timeline = facts.timeline.filter(|timeline| timeline < newest)?;
        Some(format!("it is an old primary (timeline {timeline}; {node} has timeline {newest})"))
    }

    /// Remembers the cluster of the node that is used first.
    pub(super) fn uses(&self, facts: &NodeFacts) {
        let mut identity = self.lock();
        if identity.system.is_none() {
            identity.system.clone_from(&facts.system);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ClusterIdentity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(system: &str, timeline: Option<i32>) -> NodeFacts {
        let state = if timeline.is_some() { NodeState::TakesWrites } else { NodeState::Standby };
        let system = Some(system).filter(|system| !system.is_empty()).map(str::to_owned);
        NodeFacts { state, system, timeline, clock_ahead: 0.0 }
    }

    #[test]
    fn a_node_of_another_cluster_or_of_an_older_timeline_is_objected_to() {
        let cluster = KnownCluster::default();
        let first = facts("1", Some(3));
        assert_eq!(cluster.objection(&first), None);
        cluster.uses(&first);
        cluster.learn("a:5432", &first);
        assert!(
            cluster.objection(&facts("2", Some(3))).unwrap().contains("another cluster (system identifier 2")
        );
        assert!(cluster.objection(&facts("2", None)).unwrap().contains("another cluster"));
        let old = cluster.objection(&facts("1", Some(2))).unwrap();
        assert!(old.contains("old primary (timeline 2; a:5432 has timeline 3)"), "{old}");
        // A node that does not show its identifier may be used.
        for good in [facts("1", Some(3)), facts("1", Some(4)), facts("1", None), facts("", Some(1))] {
            assert_eq!(cluster.objection(&good), None);
        }
        // A cluster that is not ours teaches nothing about ours.
        cluster.learn("b:5432", &facts("2", Some(9)));
        assert_eq!(cluster.objection(&facts("1", Some(3))), None);
    }
}
