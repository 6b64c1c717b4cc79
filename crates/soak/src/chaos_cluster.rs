//! Carries out the faults of a cluster, and notes from when work has to go on.

use crate::{
    chaos::{Chaos, Resumption},
    cluster::{BROKERS, ClusterControl},
    cluster_plan::{BrokerNode, ClusterFault, Partition, PrimaryEnd, Slowness},
};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::sleep;

/// How long work may take to go on, where connections are closed.
const LIMIT: Duration = Duration::from_secs(10);
/// The same, where a node falls silent and closes nothing.
const SILENT_LIMIT: Duration = Duration::from_secs(30);
/// How long an old primary is away before it comes back as a standby, and how long one that is cut off lives on.
const AWAY: Duration = Duration::from_secs(3);
/// From one node's return to the next one's stop, in a rolling restart.
const BETWEEN_NODES: Duration = Duration::from_secs(3);
const DELAY: Duration = Duration::from_millis(100);

impl Chaos {
    pub(crate) async fn carry_out_on_cluster(&self, fault: ClusterFault) -> Result<(), String> {
        let cluster = self.cluster.as_ref().ok_or("there is no cluster")?;
        match fault {
            ClusterFault::KillBroker(node, pause) => {
                let _alone = self.broker.lock().await;
                let node = self.index(cluster, node).await?;
                self.kill_broker(cluster, node, pause).await
            }
            ClusterFault::Partition(partition, length) => {
                let _alone = self.broker.lock().await;
                self.partition(cluster, partition, length).await
            }
            ClusterFault::Slow(slowness, length) => {
                let _alone = (self.broker.lock().await, self.database.lock().await);
                self.slow_down(cluster, slowness, length).await
            }
            ClusterFault::Promote(end) => {
                let _alone = self.database.lock().await;
                self.promote(cluster, end).await
            }
            ClusterFault::KillBoth => {
                let _alone = (self.broker.lock().await, self.database.lock().await);
                let leader = cluster.leader().await?;
                let (broker, database) = tokio::join!(
                    self.kill_broker(cluster, leader, AWAY),
                    self.promote(cluster, PrimaryEnd::Crash)
                );
                broker.and(database)
            }
            ClusterFault::RollingRestart => {
                let _alone = (self.broker.lock().await, self.database.lock().await);
                self.restart_all(cluster).await
            }
        }
    }

    /// Work has to go on from now.
    fn expect_work(&self, what: &str, limit: Duration) {
        self.expect_work_from(OffsetDateTime::now_utc(), what, limit);
    }

    fn expect_work_from(&self, since: OffsetDateTime, what: &str, limit: Duration) {
        self.note(&format!("{since} {what}"));
        self.lock_summary().resumptions.push(Resumption { what: what.to_owned(), since, limit });
    }

    async fn index(&self, cluster: &ClusterControl, node: BrokerNode) -> Result<usize, String> {
        match node {
            BrokerNode::Index(index) => Ok(index),
            BrokerNode::Leader => cluster.leader().await,
        }
    }

    async fn kill_broker(
        &self,
        cluster: &ClusterControl,
        node: usize,
        pause: Duration,
    ) -> Result<(), String> {
        cluster.act_on_broker(node, "crash").await?;
        self.expect_work(&format!("broker node {node} killed"), LIMIT);
        self.lock_summary().broker_kills += 1;
        sleep(pause).await;
        cluster.act_on_broker(node, "start").await?;
        let back = cluster.wait_for_brokers().await?;
        self.expect_work_from(back, &format!("broker node {node} back"), LIMIT);
        Ok(())
    }

    async fn partition(
        &self,
        cluster: &ClusterControl,
        partition: Partition,
        length: Duration,
    ) -> Result<(), String> {
        let node = match partition {
            Partition::Alone(node) | Partition::Silent(node) => self.index(cluster, node).await?,
            Partition::Pair(node) => node,
            Partition::ClientsFromLeader => cluster.leader().await?,
        };
        let others: Vec<_> = (0..BROKERS).filter(|other| *other != node).collect();
        match partition {
            Partition::Alone(_) => cluster.cut_broker_off(node, &others).await?,
            Partition::Silent(_) => cluster.silence_broker(node).await?,
            Partition::Pair(_) => cluster.cut_broker_off(node, &others[..1]).await?,
            Partition::ClientsFromLeader => {
                let slots = self.workers.iter().chain(&self.gateways);
                slots.for_each(|slot| slot.stall_broker_node(node, length));
            }
        }
        let what = match partition {
            Partition::Alone(_) => "alone",
            Partition::Silent(_) => "silent",
            Partition::Pair(_) => "cut from one other",
            Partition::ClientsFromLeader => "cut from its clients",
        };
        self.expect_work(&format!("broker node {node} {what}, {} s", length.as_secs()), SILENT_LIMIT);
        self.lock_summary().partitions += 1;
        sleep(length).await;
        cluster.heal_broker(node).await?;
        self.expect_work(&format!("broker node {node} healed"), SILENT_LIMIT);
        cluster.wait_for_brokers().await?;
        self.note(&format!("{} all broker nodes see each other", OffsetDateTime::now_utc()));
        Ok(())
    }

    async fn slow_down(
        &self,
        cluster: &ClusterControl,
        slowness: Slowness,
        length: Duration,
    ) -> Result<(), String> {
        let delay = |delay| self.workers.iter().chain(&self.gateways).for_each(|slot| slot.delay(delay));
        match slowness {
            Slowness::Loss => cluster.lose_packets("0.05").await?,
            Slowness::Narrow => cluster.narrow("2mbit").await?,
            Slowness::Delay => delay(DELAY),
        }
        self.expect_work(&format!("{slowness:?}"), LIMIT);
        self.lock_summary().slownesses += 1;
        sleep(length).await;
        delay(Duration::ZERO);
        cluster.end_slowness().await?;
        self.expect_work("as fast as before", LIMIT);
        Ok(())
    }

    async fn promote(&self, cluster: &ClusterControl, end: PrimaryEnd) -> Result<(), String> {
        match end {
            PrimaryEnd::Clean => cluster.act_on_primary("stop").await?,
            PrimaryEnd::Crash => cluster.act_on_primary("crash").await?,
            PrimaryEnd::CutOff => cluster.silence_primary().await?,
            PrimaryEnd::CrashAfterCut(length) => {
                cluster.cut_replication().await?;
                sleep(length).await;
                cluster.act_on_primary("crash").await?;
            }
        }
        self.note(&format!("{} the primary has ended ({end:?})", OffsetDateTime::now_utc()));
        let promoted = cluster.promote().await?;
        let limit = if end == PrimaryEnd::CutOff { SILENT_LIMIT } else { LIMIT };
        self.expect_work_from(promoted, &format!("standby promoted ({end:?})"), limit);
        self.lock_summary().promotions += 1;
        if end == PrimaryEnd::CutOff {
            // Until the workers have left it: a node that is cut off does not close their connections.
            sleep(SILENT_LIMIT.saturating_sub(LIMIT)).await;
            cluster.act_on_standby("crash").await?;
        } else {
            sleep(AWAY).await;
        }
        cluster.heal_databases().await?;
        cluster.rejoin().await?;
        self.note(&format!("{} the old primary is the standby", OffsetDateTime::now_utc()));
        Ok(())
    }

    async fn restart_all(&self, cluster: &ClusterControl) -> Result<(), String> {
        for node in 0..BROKERS {
            cluster.act_on_broker(node, "stop").await?;
            self.expect_work(&format!("broker node {node} stopped"), LIMIT);
            cluster.act_on_broker(node, "start").await?;
            cluster.wait_for_brokers().await?;
            sleep(BETWEEN_NODES).await;
        }
        cluster.restart_standby().await?;
        self.expect_work("standby restarted", LIMIT);
        self.promote(cluster, PrimaryEnd::Clean).await?;
        for slot in self.workers.iter().chain(&self.gateways) {
            slot.term().await;
        }
        self.expect_work("all processes restarted", LIMIT);
        self.lock_summary().rolling_restarts += 1;
        Ok(())
    }
}
