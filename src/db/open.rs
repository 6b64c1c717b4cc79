//! Opening the pool of a process or a command.

use super::{
    client::DatabaseClient,
    error::UnusableDatabase,
    metrics,
    node_states::{self, NodeLook},
    nodes::{DatabaseNodes, NodeConnection},
    schema::{self, migrate},
    watch::Watch,
};
use crate::{
    backoff::Backoff,
    config::{DatabaseAddress, DatabaseConfig},
    supervise::{Task, keep_running},
};
use sqlx::{ConnectOptions, PgPool, postgres::PgConnectOptions};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The nodes that the configuration names, and how to connect to them.
fn nodes_of(config: &DatabaseConfig, application: &str, client: DatabaseClient) -> DatabaseNodes {
    let DatabaseAddress { nodes, target, connect_timeout, settings, settings_from } = &config.address;
    let node = |node: &PgConnectOptions| {
        let application = node.get_application_name().unwrap_or(application).to_owned();
        node.clone()
            .application_name(&application)
            // It only affects floats that are sent as text, and a pooler refuses the parameter.
            .extra_float_digits(None)
            .log_statements(tracing::log::LevelFilter::Off)
            .log_slow_statements(tracing::log::LevelFilter::Off, Duration::ZERO)
    };
    DatabaseNodes {
        nodes: nodes.iter().map(node).collect(),
        target: *target,
        connect_timeout: *connect_timeout,
        client,
        settings: client.settings(settings).into(),
        settings_from,
        cluster: Arc::default(),
    }
}

/// Looks at every node that the configuration names, for `doctor`.
pub(crate) async fn look_at_nodes(config: &DatabaseConfig, application: &str) -> Vec<NodeLook> {
    node_states::look_at_all(&nodes_of(config, application, DatabaseClient::Command)).await
}

/// Opens a pool for a command and checks the server. It does not wait for a database that is away.
pub(crate) async fn connect(config: &DatabaseConfig, application: &str) -> Result<PgPool, UnusableDatabase> {
    let nodes = nodes_of(config, application, DatabaseClient::Command);
    let NodeConnection { connection, node } = Box::pin(nodes.connect()).await?;
    nodes.remember();
    let _ = sqlx::Connection::close(connection).await;
    Ok(nodes.pool(node, config.max_connections))
}

/// A process's pool, with what [`Watch`] needs to check the database.
#[derive(Debug)]
pub(crate) struct OpenDatabase {
    pub pool: PgPool,
    watch: Watch,
    nodes: DatabaseNodes,
}

impl OpenDatabase {
    /// Checks until `stop` whether the process can do what it needs.
    pub(crate) fn keep_watching(self, stop: CancellationToken) -> PgPool {
        let Self { pool, watch, nodes } = self;
        metrics::show(&pool);
        let task_pool = pool.clone();
        keep_running(Task::Database, stop.clone(), move |pulse| {
            Box::pin(watch.clone().run(nodes.clone(), task_pool.clone(), stop.clone(), pulse))
        });
        pool
    }
}

/// Connects, and waits for as long as the database is away. A worker then migrates the schema; a gateway waits until that is
/// done. Meanwhile `watch` reports the cause.
///
/// # Errors
///
/// A fault that does not pass by itself.
pub(crate) async fn open(
    config: &DatabaseConfig,
    application: &str,
    client: DatabaseClient,
    watch: &Watch,
) -> Result<OpenDatabase, UnusableDatabase> {
    let nodes = nodes_of(config, application, client);
    nodes.remember();
    watch.set_nodes(&nodes);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut logged = String::new();
    loop {
        let error = match Box::pin(try_to_open(config, &nodes, watch)).await {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        if !error.is_transient() {
            return Err(error);
        }
        let why = error.to_string();
        watch.set_away(&why);
        if logged != why {
            tracing::warn!(error = why, "waiting for the database");
            logged = why;
        }
        backoff.wait().await;
    }
}

async fn try_to_open(
    config: &DatabaseConfig,
    nodes: &DatabaseNodes,
    watch: &Watch,
) -> Result<OpenDatabase, UnusableDatabase> {
    if nodes.are_several() {
        // An old primary is not used, not even for a moment.
        watch.record_looks(node_states::look_at_all(nodes).await);
    }
    let mut opened = nodes.connect().await?;
    // The watch has one connection of its own.
    let connections = config.max_connections.saturating_sub(1).max(2);
    let pool = nodes.pool(opened.node.clone(), connections);
    let newer = match nodes.client {
        DatabaseClient::Worker => migrate(&pool).await?.newer,
        DatabaseClient::Gateway | DatabaseClient::Command => {
            schema::up_to_date(&mut opened.connection).await?.newer
        }
    };
    if let Some(newer) = newer {
        tracing::info!(newer, "the schema is of a newer release; continuing");
    }
    let _ = sqlx::Connection::close(opened.connection).await;
    Ok(OpenDatabase { pool, watch: watch.clone(), nodes: nodes.clone() })
}

/// Whether the newest table of this release exists.
pub(crate) async fn has_schema(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select to_regclass('steps') is not null").fetch_one(pool).await
}
