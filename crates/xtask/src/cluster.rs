//! The cluster of `./dev soak --cluster`: three broker nodes and two database nodes, each in a network namespace of its own.

mod brokers;
mod databases;
mod network;

use crate::{installation::Installation, netns, packages, run::Run};
use anyhow::{Result, bail};
use network::{BROKERS, DATABASES, Network, namespace_file};
use std::fs;

/// Where a started cluster is.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// A URL for each broker node, with commas between.
    pub amqp_url: String,
    /// The first database node alone, which is the primary.
    pub primary_url: String,
    network: Network,
}

impl Cluster {
    pub(crate) fn start(run: &Run, installation: &Installation) -> Result<Self> {
        if !packages::is_root() {
            bail!("a cluster needs root, for its network namespaces");
        }
        packages::need_command("ip", &["iproute2"])?;
        packages::need_command("iptables", &["iptables"])?;
        let network = Network::make(run)?;
        let brokers = brokers::begin(run, installation, &network)?;
        let primary_url = databases::start(run, installation, &network)?;
        let amqp_url = brokers.wait(run)?;
        Ok(Self { amqp_url, primary_url, network })
    }

    /// The database's URL with all hosts.
    pub(crate) fn database_url(&self, of_primary: &str) -> String {
        let (first, all) = (self.network.database(0), self.network.databases().join(","));
        of_primary.replacen(&first.address, &all, 1)
    }

    /// What the soak reads: for each node, its name, its address and its network namespace.
    pub(crate) fn description(&self) -> String {
        let brokers = (0..BROKERS).map(|index| self.network.broker(index));
        let databases = (0..DATABASES).map(|index| self.network.database(index));
        let nodes: Vec<_> = (brokers.chain(databases))
            .map(|node| format!("{}={}={}", node.name, node.address, node.namespace))
            .collect();
        nodes.join(",")
    }
}

/// The processes of a server that was started in a namespace.
pub(crate) fn processes(run: &Run, name: &str) -> Result<Vec<i32>> {
    match fs::read_to_string(namespace_file(run, name)) {
        Ok(namespace) => netns::processes(&namespace),
        Err(_) => Ok(Vec::new()),
    }
}

pub(crate) use databases::copy;
