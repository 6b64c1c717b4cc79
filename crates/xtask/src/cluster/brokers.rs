//! The broker nodes. They find each other by their addresses.

use super::network::{BROKERS, Network};
use crate::{
    installation::Installation,
    output::say,
    packages, ports,
    process::Process,
    rabbitmq::{Node, TICK_TIME, make_rabbitmqctl},
    random,
    run::Run,
    shell::{self, RunToEnd as _},
};
use anyhow::{Result, bail};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

const JOINED_WITHIN: Duration = Duration::from_mins(3);

/// Nodes that were started, and may not be ready yet.
pub(super) struct Brokers {
    begun: Instant,
    /// Each with its address, its process and its `rabbitmqctl`.
    nodes: Vec<(String, Process, PathBuf)>,
}

/// Starts all nodes at the same time.
pub(super) fn begin(run: &Run, installation: &Installation, network: &Network) -> Result<Brokers> {
    packages::need_file(
        &installation.root.join("usr/lib/rabbitmq/bin/rabbitmq-server"),
        &["rabbitmq-server"],
    )?;
    let begun = Instant::now();
    let cookie = random::word()?;
    let peers: Vec<_> = (0..BROKERS).map(|index| network.broker(index).address.clone()).collect();
    let mut nodes = Vec::new();
    for index in 0..BROKERS {
        let place = network.broker(index);
        let installation = installation.behind(&place.within());
        let home = installation.make_home(run, &place.name, "rabbitmq")?;
        let node =
            Node::prepare_member(run, &installation, &home, &place.name, (&place.address, &peers), &cookie)?;
        let process = run.start(&place.name, &node.server(&home), &[])?;
        let words = node.command(&home, &[], "/usr/lib/rabbitmq/bin/rabbitmqctl");
        let ctl = make_rabbitmqctl(run, &format!("rabbitmqctl-{}", index + 1), &words)?;
        nodes.push((place.address.clone(), process, ctl));
    }
    Ok(Brokers { begun, nodes })
}

impl Brokers {
    /// Waits until all nodes are one cluster, and gives their URLs.
    pub(super) fn wait(self, run: &Run) -> Result<String> {
        for (address, process, _) in &self.nodes {
            if !run.wait_for(process, JOINED_WITHIN, || ports::speaks_amqp((address.as_str(), 5672)))? {
                bail!("the broker node {address} did not start");
            }
        }
        for (address, _, ctl) in &self.nodes {
            let mut joined = shell::command(ctl);
            joined.args(["--quiet", "await_online_nodes", &BROKERS.to_string(), "--timeout", "60"]);
            if !joined.succeeds()? {
                bail!("the broker node {address} is alone");
            }
            let tick_time =
                shell::command(ctl).args(["--quiet", "eval", "net_kernel:get_net_ticktime()."]).read()?;
            if tick_time != TICK_TIME.to_string() {
                bail!("the broker node {address} has the tick time {tick_time}");
            }
        }
        say(format!("RabbitMQ: a cluster of {BROKERS} nodes ({} ms)", self.begun.elapsed().as_millis()));
        let urls: Vec<_> =
            self.nodes.iter().map(|(address, ..)| format!("amqp://guest:guest@{address}:5672/%2f")).collect();
        Ok(urls.join(","))
    }
}
