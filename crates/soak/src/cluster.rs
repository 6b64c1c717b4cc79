//! The nodes of a cluster: killed, cut off, slowed down, promoted. `./dev` (crates/xtask) has started each in a network
//! namespace of its own.

use crate::{
    broker, nodes,
    servers::{self, ServerControl},
};
use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};
use test_support::driver::{self, RunEnvironment};
use time::OffsetDateTime;
use tokio::time::sleep;

pub(crate) const BROKERS: usize = 3;
/// How long a command within a node may take.
const COMMAND_TIMEOUT: &str = "60";
/// How long the nodes may take to be one cluster again.
const HEAL_TIMEOUT: Duration = Duration::from_mins(3);
/// How long a standby may take to follow its primary.
const STREAMING_TIMEOUT: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A server with its network namespace.
#[derive(Debug, Clone)]
struct ClusterNode {
    /// That of its process, such as `rabbitmq-1`.
    name: String,
    address: String,
    namespace: String,
}

/// Whether a commit waits for the standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replication {
    Synchronous,
    Asynchronous,
}

pub(crate) struct ClusterControl {
    control: ServerControl,
    brokers: Vec<ClusterNode>,
    databases: Vec<ClusterNode>,
    /// A URL for each database node.
    database_urls: Vec<String>,
    replication: Replication,
    primary: AtomicUsize,
}

impl ClusterControl {
    /// `None` without a cluster.
    pub(crate) fn new(
        environment: &RunEnvironment,
        control: ServerControl,
        replication: Replication,
    ) -> Option<Self> {
        let nodes = driver::variable("SOAK_CLUSTER")?;
        let nodes = nodes.split(',').filter_map(|node| {
            let mut parts = node.split('=').map(str::to_owned);
            Some(ClusterNode { name: parts.next()?, address: parts.next()?, namespace: parts.next()? })
        });
        let (brokers, databases) = nodes.partition(|node| node.name.starts_with("rabbitmq"));
        let database_urls = nodes::database_urls(&environment.database_url);
        Some(Self { control, brokers, databases, database_urls, replication, primary: AtomicUsize::new(0) })
    }

    fn primary(&self) -> usize {
        self.primary.load(Ordering::Relaxed)
    }

    fn standby(&self) -> usize {
        1 - self.primary()
    }

    // The network.

    /// All traffic of a broker node is lost in silence, that of its clients too.
    pub(crate) async fn silence_broker(&self, node: usize) -> Result<(), String> {
        silence(&self.brokers[node]).await
    }

    pub(crate) async fn silence_primary(&self) -> Result<(), String> {
        silence(&self.databases[self.primary()]).await
    }

    /// The traffic between this broker node and the others is lost in silence.
    pub(crate) async fn cut_broker_off(&self, node: usize, others: &[usize]) -> Result<(), String> {
        for other in others {
            drop_traffic(&self.brokers[node], &self.brokers[*other].address).await?;
        }
        Ok(())
    }

    /// The traffic between primary and standby is lost in silence.
    pub(crate) async fn cut_replication(&self) -> Result<(), String> {
        drop_traffic(&self.databases[self.primary()], &self.databases[self.standby()].address).await
    }

    pub(crate) async fn heal_broker(&self, node: usize) -> Result<(), String> {
        within(&self.brokers[node], &["iptables", "--flush"]).await
    }

    pub(crate) async fn heal_databases(&self) -> Result<(), String> {
        for node in &self.databases {
            within(node, &["iptables", "--flush"]).await?;
        }
        Ok(())
    }

    /// Each node loses this share of the packets that it gets.
    pub(crate) async fn lose_packets(&self, share: &str) -> Result<(), String> {
        let words = ["iptables", "--append", "INPUT", "!", "--in-interface", "lo", "--match", "statistic"];
        let random = ["--mode", "random", "--probability", share, "--jump", "DROP"];
        for node in self.brokers.iter().chain(&self.databases) {
            within(node, &[&words[..], &random].concat()).await?;
        }
        Ok(())
    }

    pub(crate) async fn narrow(&self, rate: &str) -> Result<(), String> {
        let words = ["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate];
        for node in self.brokers.iter().chain(&self.databases) {
            within(node, &[&words[..], &["burst", "32kb", "latency", "400ms"]].concat()).await?;
        }
        Ok(())
    }

    /// Ends what [`Self::lose_packets`] and [`Self::narrow`] have begun.
    pub(crate) async fn end_slowness(&self) -> Result<(), String> {
        for node in self.brokers.iter().chain(&self.databases) {
            within(node, &["iptables", "--flush"]).await?;
            // There may be none.
            let _ = within(node, &["tc", "qdisc", "delete", "dev", "eth0", "root"]).await;
        }
        Ok(())
    }

    // The broker.

    /// The index of the node that leads the queue of requests.
    pub(crate) async fn leader(&self) -> Result<usize, String> {
        let mut failure = String::new();
        for node in 0..BROKERS {
            match self
                .rabbitmqctl(
                    node,
                    &["--no-table-headers", "--timeout", "20", "list_queues", "name", "leader"],
                )
                .await
            {
                Ok(queues) => {
                    let requests = format!("{}\t", broker::queue("requests"));
                    let leader = queues.lines().find_map(|line| line.strip_prefix(&requests));
                    let is_leader = |node: &ClusterNode| leader == Some(&format!("rabbit@{}", node.address));
                    if let Some(leader) = self.brokers.iter().position(is_leader) {
                        return Ok(leader);
                    }
                    failure = format!("the queue of requests has no leader: {leader:?}");
                }
                Err(why) => failure = why,
            }
        }
        Err(failure)
    }

    async fn rabbitmqctl(&self, node: usize, words: &[&str]) -> Result<String, String> {
        let program = self.control.run.join(format!("rabbitmqctl-{}", node + 1));
        let program = program.display().to_string();
        output(&[&[program.as_str(), "--quiet"], words].concat()).await
    }

    pub(crate) async fn act_on_broker(&self, node: usize, action: &'static str) -> Result<(), String> {
        self.control.act(&self.brokers[node].name, action).await
    }

    /// Waits until all broker nodes are one cluster again, and serve clients. Gives the time.
    pub(crate) async fn wait_for_brokers(&self) -> Result<OffsetDateTime, String> {
        let begun = Instant::now();
        for (index, node) in self.brokers.iter().enumerate() {
            // A node that was in the minority starts its broker again.
            servers::wait_for_broker(&format!("amqp://{}:5672", node.address), HEAL_TIMEOUT)
                .await
                .map_err(|failure| format!("{}: {failure}", node.name))?;
            loop {
                let words = ["await_online_nodes", "3", "--timeout", "20"];
                match self.rabbitmqctl(index, &words).await {
                    Ok(_) => break,
                    Err(failure) if begun.elapsed() > HEAL_TIMEOUT => {
                        return Err(format!("{} does not see all nodes: {failure}", node.name));
                    }
                    Err(_) => sleep(POLL_INTERVAL).await,
                }
            }
        }
        Ok(OffsetDateTime::now_utc())
    }

    // The database.

    pub(crate) async fn act_on_primary(&self, action: &'static str) -> Result<(), String> {
        self.control.act(&self.databases[self.primary()].name, action).await
    }

    pub(crate) async fn act_on_standby(&self, action: &'static str) -> Result<(), String> {
        self.control.act(&self.databases[self.standby()].name, action).await
    }

    pub(crate) async fn restart_standby(&self) -> Result<(), String> {
        let name = &self.databases[self.standby()].name;
        self.control.act(name, "stop").await?;
        self.control.act(name, "start").await?;
        self.wait_for_standby().await
    }

    /// Makes the standby the primary. Gives the time from which it takes writes.
    pub(crate) async fn promote(&self) -> Result<OffsetDateTime, String> {
        let new = self.standby();
        servers::promote(&self.database_urls[new]).await.map_err(|error| format!("promotion: {error}"))?;
        self.primary.store(new, Ordering::Relaxed);
        Ok(OffsetDateTime::now_utc())
    }

    /// The old primary, which does not run, comes back as the standby.
    pub(crate) async fn rejoin(&self) -> Result<(), String> {
        self.control.act(&self.databases[self.standby()].name, "rejoin").await?;
        self.wait_for_standby().await?;
        self.set_replication().await
    }

    /// Sets whether commits wait for the standby.
    pub(crate) async fn set_replication(&self) -> Result<(), String> {
        let url = &self.database_urls[self.primary()];
        let is_synchronous = self.replication == Replication::Synchronous;
        servers::set_synchronous(url, is_synchronous).await.map_err(|error| format!("replication: {error}"))
    }

    async fn wait_for_standby(&self) -> Result<(), String> {
        let begun = Instant::now();
        let url = &self.database_urls[self.primary()];
        while !servers::is_standby_streaming(url).await.unwrap_or_default() {
            if begun.elapsed() > STREAMING_TIMEOUT {
                return Err("the standby does not follow the primary".to_owned());
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }
}

async fn silence(node: &ClusterNode) -> Result<(), String> {
    within(node, &["iptables", "--append", "INPUT", "!", "--in-interface", "lo", "--jump", "DROP"]).await?;
    within(node, &["iptables", "--append", "OUTPUT", "!", "--out-interface", "lo", "--jump", "DROP"]).await
}

async fn drop_traffic(node: &ClusterNode, other: &str) -> Result<(), String> {
    within(node, &["iptables", "--append", "INPUT", "--source", other, "--jump", "DROP"]).await?;
    within(node, &["iptables", "--append", "OUTPUT", "--destination", other, "--jump", "DROP"]).await
}

async fn within(node: &ClusterNode, words: &[&str]) -> Result<(), String> {
    let within = ["ip", "netns", "exec", &node.namespace];
    output(&[&within[..], words].concat()).await.map(drop)
}

/// Runs a command to its end, and gives its output.
async fn output(words: &[&str]) -> Result<String, String> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let line = words.join(" ");
    let run = move || {
        let mut command = Command::new("timeout");
        command.arg(COMMAND_TIMEOUT).args(words).stdin(Stdio::null()).output()
    };
    match tokio::task::spawn_blocking(run).await {
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("{line}: {} {}", output.status, errors.lines().last().unwrap_or_default()))
        }
        other => Err(format!("{line}: {other:?}")),
    }
}
