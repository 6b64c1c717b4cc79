//! The settings of `./dev soak --cluster --setting NAME`: which nodes fail, and how.

use crate::cluster::{BROKERS, Replication};
use rand::{RngExt, rngs::StdRng, seq::SliceRandom};
use std::time::Duration;

/// A node of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokerNode {
    Index(usize),
    /// The one that leads the queue of requests at that moment.
    Leader,
}

/// Which traffic is lost in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partition {
    /// Between this node and the other two. Clients still reach it.
    Alone(BrokerNode),
    /// All of this node's, as if the machine were gone.
    Silent(BrokerNode),
    /// Between this node and the next: each still sees the third.
    Pair(usize),
    /// Between all workers and gateways and the leader. The nodes see each other.
    ClientsFromLeader,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slowness {
    /// Of the packets, 5 % are lost.
    Loss,
    /// Each node sends at most 2 Mbit/s.
    Narrow,
    /// What passes between workers and servers takes 100 ms in each direction, so an answer takes 200 ms longer.
    Delay,
}

/// What happens to the primary before its standby is promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrimaryEnd {
    /// A fast shutdown.
    Clean,
    /// `kill -9` of all its processes.
    Crash,
    /// It is cut off from everything, and lives on.
    CutOff,
    /// Its standby is cut off for this long while it still serves clients, and then it crashes.
    CrashAfterCut(Duration),
}

/// A fault of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClusterFault {
    /// `kill -9`, and a start after this long.
    KillBroker(BrokerNode, Duration),
    Partition(Partition, Duration),
    Slow(Slowness, Duration),
    Promote(PrimaryEnd),
    /// The leader and the primary are killed at the same time.
    KillBoth,
    /// Each broker node, each database node, each worker and each gateway, one after the other.
    RollingRestart,
}

impl ClusterFault {
    pub(crate) fn is_of_database(self) -> bool {
        matches!(self, Self::Promote(_))
    }
}

/// One row of the matrix in docs/DURABILITY.md.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub name: &'static str,
    pub seed: u64,
    pub seconds: u64,
    /// Invites in a second.
    pub rate: usize,
    pub replication: Replication,
    /// How often the soak's other faults happen, as a share of their usual number.
    pub background: f64,
    /// The faults, in the order in which they happen.
    faults: fn(&mut StdRng, u64) -> Vec<ClusterFault>,
}

const SHORT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(30);

const fn setting(
    name: &'static str,
    seed: u64,
    seconds: u64,
    faults: fn(&mut StdRng, u64) -> Vec<ClusterFault>,
) -> Setting {
    let rate = 20;
    Setting { name, seed, seconds, rate, replication: Replication::Synchronous, background: 0.25, faults }
}

/// All settings; the hardest is the last.
pub(crate) const SETTINGS: [Setting; 18] = [
    setting("node-kills", 1, 90, |rng, _| each_node(rng, kill)),
    setting("leader-kills", 2, 90, |_, _| vec![kill(BrokerNode::Leader); 3]),
    setting("node-alone-10", 3, 90, |rng, _| partitions(rng, Partition::Alone, SHORT)),
    setting("node-alone-30", 4, 150, |rng, _| partitions(rng, Partition::Alone, LONG)),
    setting("node-silent-10", 5, 90, |rng, _| partitions(rng, Partition::Silent, SHORT)),
    setting("node-silent-30", 6, 150, |rng, _| partitions(rng, Partition::Silent, LONG)),
    setting("pair-cut-10", 7, 90, |rng, _| pair_cuts(rng, SHORT)),
    setting("pair-cut-30", 8, 150, |rng, _| pair_cuts(rng, LONG)),
    setting("worker-cut-from-leader", 9, 120, |_, _| {
        vec![SHORT, LONG].into_iter().map(|length| partition(Partition::ClientsFromLeader, length)).collect()
    }),
    setting("loss", 10, 60, |_, _| vec![ClusterFault::Slow(Slowness::Loss, LONG)]),
    setting("narrow", 11, 60, |_, _| vec![ClusterFault::Slow(Slowness::Narrow, LONG)]),
    setting("delay", 12, 60, |_, _| vec![ClusterFault::Slow(Slowness::Delay, LONG)]),
    setting("promote-clean", 13, 60, |_, _| vec![ClusterFault::Promote(PrimaryEnd::Clean); 2]),
    setting("promote-crash", 14, 60, |_, _| vec![ClusterFault::Promote(PrimaryEnd::Crash); 2]),
    setting("promote-cut-off", 15, 90, |_, _| {
        vec![
            ClusterFault::Promote(PrimaryEnd::CutOff),
            ClusterFault::Promote(PrimaryEnd::CrashAfterCut(Duration::from_secs(8))),
        ]
    }),
    Setting {
        replication: Replication::Asynchronous,
        ..setting("async-promote", 16, 60, |_, _| {
            vec![ClusterFault::Promote(PrimaryEnd::CrashAfterCut(Duration::from_secs(4))); 2]
        })
    },
    setting("both", 17, 90, |_, _| vec![ClusterFault::KillBoth, ClusterFault::RollingRestart]),
    Setting { rate: 50, ..setting("everything", 18, 400, everything) },
];

impl Setting {
    pub(crate) fn of(name: &str) -> Option<Self> {
        SETTINGS.iter().find(|setting| setting.name == name).copied()
    }

    /// The faults with their times, as shares of the whole duration. Those of the broker and of the database each follow
    /// each other, and may happen at the same time.
    pub(crate) fn faults(&self, rng: &mut StdRng, seconds: u64) -> Vec<(f64, ClusterFault)> {
        let all = (self.faults)(rng, seconds);
        let (database, broker): (Vec<_>, Vec<_>) = all.into_iter().partition(|fault| fault.is_of_database());
        let mut plan = Vec::new();
        for faults in [broker, database] {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let count = faults.len() as f64;
            #[expect(clippy::cast_precision_loss, reason = "small")]
            plan.extend(faults.into_iter().enumerate().map(|(number, fault)| {
                (0.05 + (number as f64 + rng.random_range(0.0..0.3)) / count * 0.9, fault)
            }));
        }
        plan
    }
}

fn kill(node: BrokerNode) -> ClusterFault {
    ClusterFault::KillBroker(node, Duration::from_secs(3))
}

fn partition(partition: Partition, length: Duration) -> ClusterFault {
    ClusterFault::Partition(partition, length)
}

fn each_node(rng: &mut StdRng, fault: fn(BrokerNode) -> ClusterFault) -> Vec<ClusterFault> {
    let mut nodes: Vec<_> = (0..BROKERS).collect();
    nodes.shuffle(rng);
    nodes.into_iter().map(|node| fault(BrokerNode::Index(node))).collect()
}

/// Once the leader, once any node.
fn partitions(rng: &mut StdRng, kind: fn(BrokerNode) -> Partition, length: Duration) -> Vec<ClusterFault> {
    let any = BrokerNode::Index(rng.random_range(0..BROKERS));
    [BrokerNode::Leader, any].map(|node| partition(kind(node), length)).into()
}

fn pair_cuts(rng: &mut StdRng, length: Duration) -> Vec<ClusterFault> {
    let first = rng.random_range(0..BROKERS);
    [first, (first + 1) % BROKERS].map(|node| partition(Partition::Pair(node), length)).into()
}

/// One fault of the broker in 40 s, and one of the database in 100 s; in a short run one of each.
fn everything(rng: &mut StdRng, seconds: u64) -> Vec<ClusterFault> {
    let any = BrokerNode::Index(rng.random_range(0..BROKERS));
    let mut of_broker = vec![
        partition(Partition::Silent(BrokerNode::Leader), SHORT),
        kill(BrokerNode::Leader),
        partition(Partition::Alone(BrokerNode::Leader), SHORT),
        ClusterFault::KillBoth,
        partition(Partition::Pair(rng.random_range(0..BROKERS)), SHORT),
        partition(Partition::ClientsFromLeader, SHORT),
        kill(any),
        partition(Partition::Silent(any), LONG),
        ClusterFault::RollingRestart,
        partition(Partition::Alone(any), LONG),
    ];
    let mut of_database = vec![
        ClusterFault::Promote(PrimaryEnd::Crash),
        ClusterFault::Promote(PrimaryEnd::CutOff),
        ClusterFault::Promote(PrimaryEnd::CrashAfterCut(Duration::from_secs(8))),
        ClusterFault::Promote(PrimaryEnd::Clean),
    ];
    let count = |every: u64| usize::try_from(seconds / every).unwrap_or_default().max(1);
    of_broker.truncate(count(40));
    of_database.truncate(count(100));
    of_broker.extend(of_database);
    of_broker
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    #[test]
    fn settings_have_names_of_their_own_and_faults() {
        let names: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(names.len(), SETTINGS.len());
        for setting in SETTINGS {
            let plan = |seed| setting.faults(&mut StdRng::seed_from_u64(seed), setting.seconds);
            assert!(!plan(1).is_empty() && plan(1) == plan(1), "{}", setting.name);
            assert!(plan(1).iter().all(|(share, _)| (0.0..1.0).contains(share)), "{}", setting.name);
        }
    }

    #[test]
    fn the_hardest_setting_has_partitions_promotions_and_at_its_full_length_leader_kills() {
        let hardest = Setting::of("everything").unwrap();
        let whole = hardest.faults(&mut StdRng::seed_from_u64(1), hardest.seconds);
        assert!(
            whole.iter().any(|(_, fault)| matches!(fault, ClusterFault::KillBroker(BrokerNode::Leader, _)))
        );
        for seconds in [60, hardest.seconds] {
            let plan = hardest.faults(&mut StdRng::seed_from_u64(1), seconds);
            let has = |is: fn(&ClusterFault) -> bool| plan.iter().any(|(_, fault)| is(fault));
            assert!(has(|fault| matches!(fault, ClusterFault::Partition(..))));
            assert!(has(|fault| matches!(fault, ClusterFault::Promote(_))));
        }
    }
}
