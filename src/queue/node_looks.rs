//! Looks at the broker's nodes: those that no connection of this process leads to every few seconds, and all for `doctor`.

use super::{
    connection::{check_cluster, connect_to_node},
    nodes::{self, NextLook},
    wire::BrokerVersion,
};
use crate::{
    config::{BrokerConfig, broker_node_name},
    supervise::{Pulse, Task, keep_running},
};
use futures::future::join_all;
use lapin::uri::AMQPUri;
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

/// How often the nodes are looked at.
const LOOKS_EVERY: Duration = Duration::from_secs(5);
/// How long a node may take to accept a TCP connection.
const ACCEPTS_WITHIN: Duration = Duration::from_secs(3);
/// Looks at the nodes until `stop`, where there are several.
pub(crate) fn keep_looking_at_nodes(config: &BrokerConfig, stop: CancellationToken) {
    nodes::remember(config);
    let config = config.clone();
    keep_running(Task::BrokerNodes, stop.clone(), move |pulse| {
        let (config, stop) = (config.clone(), stop.clone());
        async move {
            stop.run_until_cancelled(look_again_and_again(&config, &pulse)).await;
        }
    });
}

async fn look_again_and_again(config: &BrokerConfig, pulse: &Pulse) {
    loop {
        pulse.idle();
        tokio::time::sleep(LOOKS_EVERY).await;
        if config.nodes.len() > 1 {
            pulse.step("looking at the broker's nodes");
            join_all(config.nodes.iter().map(|node| look(config, node))).await;
            nodes::log_changes();
        }
    }
}

/// Looks at a node, unless a connection shows its state.
async fn look(config: &BrokerConfig, node: &AMQPUri) {
    let name = broker_node_name(node);
    match nodes::next_look(&name) {
        NextLook::None => return,
        NextLook::LogIn => {
            log_in(config, node).await;
            return;
        }
        NextLook::Tcp => {}
    }
    let address = (node.authority.host.as_str(), node.authority.port);
    match timeout(ACCEPTS_WITHIN, TcpStream::connect(address)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => nodes::refused(&name, &error.to_string()),
        Err(_) => nodes::refused(&name, &format!("no answer in {} s", ACCEPTS_WITHIN.as_secs())),
    }
}

/// Connects to a node, which keeps what it finds, and closes the connection.
async fn log_in(config: &BrokerConfig, node: &AMQPUri) {
    let broker = BrokerVersion::default();
    let connecting = connect_to_node(nodes::with_limit(config, node), "look at a node", broker.clone());
    if let Ok(connection) = connecting.await {
        let _ = check_cluster(config, &broker_node_name(node), &broker);
        let _ = timeout(ACCEPTS_WITHIN, connection.close(200, "done".into())).await;
    }
}

/// What a look at one node has found, for `doctor`.
#[derive(Debug)]
pub(crate) struct BrokerNodeLook {
    pub name: String,
    /// What the node says of itself, or why it cannot be used.
    pub found: Result<BrokerVersion, String>,
}

/// Looks at all nodes at the same time.
pub(crate) async fn look_at_broker_nodes(config: &BrokerConfig) -> Vec<BrokerNodeLook> {
    join_all(config.nodes.iter().map(async |node| {
        let broker = BrokerVersion::default();
        let connecting = connect_to_node(nodes::with_limit(config, node), "doctor", broker.clone());
        let found = match connecting.await {
            Ok(connection) => {
                let _ = timeout(ACCEPTS_WITHIN, connection.close(200, "done".into())).await;
                Ok(broker)
            }
            Err(error) => Err(error.reason()),
        };
        BrokerNodeLook { name: broker_node_name(node), found }
    }))
    .await
}
