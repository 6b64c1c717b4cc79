//! Which of the database's nodes is used.

use super::{Unusable, refused};
use crate::config::{DatabaseAddress, TargetNode};
use rand::seq::SliceRandom;
use sqlx::{
    ConnectOptions, Connection,
    postgres::{PgConnectOptions, PgConnection},
};
use std::io;
use tokio::time::timeout;

/// Looks for the node that takes writes, in random order; one that is the only one is taken as it is.
pub async fn choose(address: &DatabaseAddress) -> Result<PgConnectOptions, Unusable> {
    if let ([only], TargetNode::Any) = (address.nodes.as_slice(), address.target) {
        return Ok(only.clone());
    }
    let mut nodes = address.nodes.clone();
    nodes.shuffle(&mut rand::rng());
    let mut found = Vec::new();
    for node in nodes {
        let why = match timeout(address.connect_timeout, is_read_only(&node)).await {
            Ok(Ok(true)) if address.target == TargetNode::Writes => "it is read-only".to_owned(),
            Ok(Ok(_)) => return Ok(node),
            Ok(Err(error)) => match refused(error) {
                // The nodes have the same users, so a refusal here is one everywhere.
                refusal @ Unusable::Login(_) => return Err(refusal),
                other => other.to_string(),
            },
            Err(_) => format!("no answer in {} s", address.connect_timeout.as_secs()),
        };
        found.push(format!("{}:{}: {why}", node.get_host(), node.get_port()));
    }
    let why = format!("no node takes writes: {}", found.join("; "));
    Err(Unusable::Away(io::Error::new(io::ErrorKind::NotConnected, why).into()))
}

async fn is_read_only(node: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let node = node.clone().log_statements(tracing::log::LevelFilter::Off);
    let mut connection = PgConnection::connect_with(&node).await?;
    let shown: String = sqlx::query_scalar("show transaction_read_only").fetch_one(&mut connection).await?;
    let _ = connection.close().await;
    Ok(shown == "on")
}
