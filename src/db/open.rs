//! Opening the pool of a process or a command.

use super::{
    client::Client,
    error::Unusable,
    reach::{Reach, Reached},
    schema::{self, migrate},
    watch::Watch,
};
use crate::{
    backoff::Backoff,
    config::{DatabaseAddress, DatabaseConfig},
    supervise::{Task, keep_up},
};
use sqlx::{ConnectOptions, PgPool, postgres::PgConnectOptions};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Where the database of these settings is.
fn reach(config: &DatabaseConfig, application: &str, client: Client) -> Reach {
    let DatabaseAddress { nodes, target, connect_timeout, settings, settings_from } = &config.address;
    let node = |node: &PgConnectOptions| {
        let application = node.get_application_name().unwrap_or(application).to_owned();
        node.clone()
            .application_name(&application)
            // Only text needs it, and a pooler would refuse it.
            .extra_float_digits(None)
            .log_statements(tracing::log::LevelFilter::Off)
            .log_slow_statements(tracing::log::LevelFilter::Off, Duration::ZERO)
    };
    Reach {
        nodes: nodes.iter().map(node).collect(),
        target: *target,
        connect_timeout: *connect_timeout,
        client,
        settings: client.settings(settings).into(),
        settings_from,
    }
}

/// Opens a pool and checks the server, or says at once why not.
pub async fn connect(config: &DatabaseConfig, application: &str) -> Result<PgPool, Unusable> {
    let reach = reach(config, application, Client::Command);
    let Reached { connection, node } = Box::pin(reach.connect()).await?;
    reach.remember();
    let _ = sqlx::Connection::close(connection).await;
    Ok(reach.pool(node, config.max_connections))
}

/// A process's pool, and what [`Watch`] needs to look after it.
#[derive(Debug)]
pub struct Opened {
    pub pool: PgPool,
    watch: Watch,
    reach: Reach,
}

impl Opened {
    /// Looks whether all can be done that this process needs, until `stop`.
    pub fn keep_watching(self, stop: CancellationToken) -> PgPool {
        let Self { pool, watch, reach } = self;
        let of_the_task = pool.clone();
        keep_up(Task::Database, stop.clone(), move |pulse| {
            Box::pin(watch.clone().run(reach.clone(), of_the_task.clone(), stop.clone(), pulse))
        });
        pool
    }
}

/// Connects, however long the database is away, and brings the schema up to date; a gateway waits for that. `watch` says
/// meanwhile what it waits for.
///
/// # Errors
///
/// What no waiting mends.
pub async fn open(
    config: &DatabaseConfig,
    application: &str,
    client: Client,
    watch: &Watch,
) -> Result<Opened, Unusable> {
    let reach = reach(config, application, client);
    reach.remember();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut told = String::new();
    loop {
        let error = match Box::pin(try_to_open(config, &reach, watch)).await {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        if !error.passes() {
            return Err(error);
        }
        let why = error.to_string();
        watch.is_away(&why);
        if told != why {
            tracing::warn!(error = why, "waiting for the database");
            told = why;
        }
        backoff.wait().await;
    }
}

async fn try_to_open(config: &DatabaseConfig, reach: &Reach, watch: &Watch) -> Result<Opened, Unusable> {
    let mut reached = reach.connect().await?;
    // One of them looks whether all is well.
    let connections = config.max_connections.saturating_sub(1).max(2);
    let pool = reach.pool(reached.node.clone(), connections);
    let newer = match reach.client {
        Client::Worker => migrate(&pool).await?.newer,
        Client::Gateway | Client::Command => schema::up_to_date(&mut reached.connection).await?.newer,
    };
    if let Some(newer) = newer {
        tracing::info!(newer, "the schema is of a newer release; going on");
    }
    let _ = sqlx::Connection::close(reached.connection).await;
    Ok(Opened { pool, watch: watch.clone(), reach: reach.clone() })
}

/// Whether the last table of the migrations is there.
pub async fn has_schema(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select to_regclass('optouts') is not null").fetch_one(pool).await
}
