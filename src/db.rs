//! The database: connecting, what an error from it means, and whether what a process needs of it can be done.

pub mod kinds;
mod leave;
mod probe;
mod reach;
mod schema;
mod sqlstate;
mod transaction;
mod watch;

pub use leave::{answered, leaving};
pub use probe::{HELD_FOR, Locks, Obstacle, obstacles};
pub use schema::{MIGRATIONS, Schema, migrate};
pub use sqlstate::Action;
pub use transaction::{begin, begin_with};
pub use watch::Watch;

use crate::{
    backoff::Backoff,
    config::{DatabaseAddress, DatabaseConfig},
    supervise::{Task, keep_up},
};
use reach::{Reach, Reached};
use sqlx::{ConnectOptions, PgConnection, PgPool, migrate::MigrateError, postgres::PgConnectOptions};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What to do about an error from the database.
pub fn action(error: &sqlx::Error) -> Action {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Action::LeaveConnection
        }
        sqlx::Error::PoolTimedOut => Action::Wait,
        sqlx::Error::Database(error) => error.code().map_or(Action::Refuse, |code| sqlstate::action(&code)),
        _ => Action::Refuse,
    }
}

/// Whether the statement may have been carried out all the same.
pub fn may_hide_a_commit(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| sqlstate::may_hide_a_commit(&code)),
        sqlx::Error::PoolTimedOut => false,
        _ => true,
    }
}

/// What follows for connections from an error.
fn noticed(error: Option<&sqlx::Error>) {
    if error.is_some_and(|error| action(error) == Action::LeaveConnection) {
        leave::leave_connections();
    }
    watch::LOOK.notify_one();
}

/// Why there is no connection, in place of the pool's own words, which hide it.
pub async fn why_no_connection() -> String {
    reach::why_no_connection().await
}

/// Whether a connection that was not used for a while still answers.
pub async fn pings(connection: &mut PgConnection) -> bool {
    reach::pings(connection, Duration::from_secs(1)).await
}

/// Why the database cannot be used at all, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("the database refuses the login: {0}; check the user, password and database of DATABASE_URL")]
    Login(String),
    #[error("PostgreSQL {0} is too old: version 13 or later is needed")]
    TooOld(String),
    #[error(
        "the database's encoding is {0}, and UTF8 is needed: create database NAME encoding 'UTF8' template template0"
    )]
    Encoding(String),
    #[error(
        "the pooler before the database refuses a startup parameter: {0}; session-invite needs none but those of every \
         client, so take it out of DATABASE_URL, or let pgbouncer's ignore_startup_parameters name it"
    )]
    Pooler(String),
    #[error(
        "{0}: the server does not take a setting in its options, or this role may not set it (SQLSTATE {1}); correct it or \
         take it out"
    )]
    Setting(&'static str, String),
    #[error("the database is away ({0})")]
    Away(String),
    #[error("the schema is newer than this program (migration {0} is unknown to it): update the program")]
    SchemaNewer(i64),
    #[error(
        "the schema is not up to date ({missing} migrations are to come): run session-invite migrate, or start a worker"
    )]
    SchemaOld { missing: usize },
    #[error(
        "the schema is not up to date ({missing} migrations are to come), and this role may not change it: {error}; run \
         session-invite migrate as a role with the right to create in the schema and that owns its tables"
    )]
    MayNotMigrate { missing: usize, error: String },
    #[error(
        "the role {role} has no right to use the schema {schema}: grant usage on schema {schema} to {role}"
    )]
    SchemaHidden { schema: String, role: String },
    #[error("the migrations failed: {0}")]
    Migration(MigrateError),
}

impl Unusable {
    /// Whether waiting may help.
    pub fn passes(&self) -> bool {
        match self {
            Self::Away(_) | Self::SchemaOld { .. } | Self::SchemaHidden { .. } => true,
            Self::Migration(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                !matches!(action(error), Action::Refuse | Action::End)
            }
            _ => false,
        }
    }
}

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Worker,
    Gateway,
    /// An operator's question, which may well read a whole table.
    Command,
}

impl Client {
    /// Settings of a connection. Statements of processes must never read a whole table. A plan is made once for a
    /// connection, maybe when the tables are empty: so it must be right for full ones. Those of the URL come last, and win.
    fn settings(self, of_the_url: &[(String, String)]) -> Vec<(String, String)> {
        let ours: &[(&str, &str)] = match self {
            Self::Worker | Self::Gateway => &[
                ("plan_cache_mode", "force_generic_plan"),
                ("enable_seqscan", "off"),
                ("max_parallel_workers_per_gather", "0"),
                ("jit", "off"),
                ("statement_timeout", "15s"),
                ("lock_timeout", "5s"),
                ("idle_in_transaction_session_timeout", "60s"),
            ],
            Self::Command => &[
                ("statement_timeout", "30s"),
                ("lock_timeout", "10s"),
                ("idle_in_transaction_session_timeout", "60s"),
            ],
        };
        let ours = ours.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        ours.chain(of_the_url.iter().cloned()).collect()
    }

    /// How long an idle connection is used without a sign of life. A request must not be what finds a closed one; the
    /// worker's statements are repeated.
    fn trusts_for(self) -> Option<Duration> {
        match self {
            Self::Worker => Some(Duration::from_secs(1)),
            // In a burst a sign of life for each statement would be half of the work.
            Self::Gateway => Some(Duration::from_millis(20)),
            Self::Command => None,
        }
    }
}

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
