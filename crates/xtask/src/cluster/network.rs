//! A network of the run's own: a namespace for each node, one for the bridge between them, and this machine as the first
//! address. The bridge has a namespace of its own since Docker lets this machine's firewall drop what bridges carry.

use crate::{
    netns::ip,
    random,
    run::Run,
    shell::{self, RunToEnd as _},
    undo::Resource,
};
use anyhow::{Result, bail};
use std::{fs, path::PathBuf};

pub(crate) const BROKERS: usize = 3;
pub(crate) const DATABASES: usize = 2;
const BRIDGE: &str = "bridge";
const TRIES: usize = 20;

/// A place for one server.
#[derive(Debug, Clone)]
pub(super) struct ClusterNode {
    /// Such as `rabbitmq-1`.
    pub name: String,
    pub address: String,
    pub namespace: String,
}

impl ClusterNode {
    /// The words before a command that runs there.
    pub(super) fn within(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace].map(str::to_owned).into()
    }
}

#[derive(Debug)]
pub(super) struct Network {
    /// Such as `10.231.17`.
    prefix: String,
    nodes: Vec<ClusterNode>,
}

impl Network {
    pub(super) fn make(run: &Run) -> Result<Self> {
        let tag = format!("si{}", &random::word()?[..6]);
        let prefix = free_prefix()?;
        let bridge = format!("{tag}-sw");
        let host = format!("{tag}-h");
        run.note(Resource::Link(host.clone()))?;
        make_namespace(run, &bridge)?;
        ip(&["-n", &bridge, "link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["-n", &bridge, "link", "set", BRIDGE, "up"])?;
        ip(&["link", "add", &host, "type", "veth", "peer", "name", "host", "netns", &bridge])?;
        ip(&["address", "add", &format!("{prefix}.1/24"), "dev", &host])?;
        ip(&["link", "set", &host, "up"])?;
        ip(&["-n", &bridge, "link", "set", "host", "master", BRIDGE, "up"])?;
        let mut nodes = Vec::new();
        for (kind, first, count) in [("rabbitmq", 11, BROKERS), ("postgres", 21, DATABASES)] {
            for index in 0..count {
                let node = ClusterNode {
                    name: format!("{kind}-{}", index + 1),
                    address: format!("{prefix}.{}", first + index),
                    namespace: format!("{tag}-{}{}", &kind[..1], index + 1),
                };
                add(run, &node, &bridge)?;
                nodes.push(node);
            }
        }
        Ok(Self { prefix, nodes })
    }

    pub(super) fn broker(&self, index: usize) -> &ClusterNode {
        &self.nodes[index]
    }

    pub(super) fn database(&self, index: usize) -> &ClusterNode {
        &self.nodes[BROKERS + index]
    }

    /// The addresses of all database nodes with their ports, as a URL has them. A URL's own port follows the last.
    pub(super) fn databases(&self) -> Vec<String> {
        let address = |index| {
            let port = if index + 1 < DATABASES { ":5432" } else { "" };
            format!("{}{port}", self.database(index).address)
        };
        (0..DATABASES).map(address).collect()
    }

    pub(super) fn range(&self) -> String {
        format!("{}.0/24", self.prefix)
    }
}

/// The first three numbers of a network that this machine has no route to.
fn free_prefix() -> Result<String> {
    for _ in 0..TRIES {
        let prefix = format!("10.231.{}", random::below(256)?);
        let routes =
            shell::command("ip").args(["-4", "route", "show", "root", &format!("{prefix}.0/24")]).read()?;
        if routes.is_empty() {
            return Ok(prefix);
        }
    }
    bail!("no network 10.231.x.0/24 is free")
}

fn make_namespace(run: &Run, name: &str) -> Result<()> {
    run.note(Resource::Namespace(name.to_owned()))?;
    ip(&["netns", "add", name])?;
    ip(&["-n", name, "link", "set", "lo", "up"])
}

fn add(run: &Run, node: &ClusterNode, bridge: &str) -> Result<()> {
    let ClusterNode { name, address, namespace } = node;
    make_namespace(run, namespace)?;
    ip(&["link", "add", name, "netns", bridge, "type", "veth", "peer", "name", "eth0", "netns", namespace])?;
    ip(&["-n", bridge, "link", "set", name, "master", BRIDGE, "up"])?;
    ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
    ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
    Ok(fs::write(namespace_file(run, name), namespace)?)
}

/// The file with the namespace of a server.
pub(super) fn namespace_file(run: &Run, name: &str) -> PathBuf {
    run.directory.join(format!("{name}.namespace"))
}
