//! The database: connecting, and what an error from it means.

mod nodes;

use crate::config::DatabaseConfig;
use sqlx::{
    ConnectOptions, PgPool,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use std::time::Duration;

/// The oldest server that the migrations and queries are written for.
const OLDEST: i32 = 130_000;

/// The migrations in `migrations/`, embedded.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// What to do about an error from the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The server is away, busy or restarting: the same statement may well succeed later.
    Wait,
    /// The statement or its data is wrong (SQLSTATE 22, 23 and the rest): it never will.
    GiveUp,
}

/// Decides by SQLSTATE class; see <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub fn remedy(error: &sqlx::Error) -> Remedy {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => Remedy::Wait,
        sqlx::Error::Database(error) => match error.code().as_deref().map(|code| code.split_at(2)) {
            // A right or a table that is missing is an operator's to give back, as a login is.
            Some(("42", "501" | "P01")) => Remedy::Wait,
            // The data, a constraint, or the statement itself.
            Some(("22" | "23" | "42", _)) | None => Remedy::GiveUp,
            // The connection, the login, resources, a restart, a failover, a plan that a migration has made old.
            Some(_) => Remedy::Wait,
        },
        _ => Remedy::GiveUp,
    }
}

/// Why the database cannot be used at all, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("the database refuses the login: {0}; check the user, password and database of DATABASE_URL")]
    Login(String),
    #[error("PostgreSQL {0} is too old: version 13 or later is needed")]
    TooOld(String),
    #[error("the database is away ({0}); is it running where DATABASE_URL points?")]
    Away(#[source] sqlx::Error),
    #[error("the schema is newer than this program (migration {0} is unknown to it): update the program")]
    SchemaNewer(i64),
    #[error("the migrations failed: {0}")]
    Migration(MigrateError),
}

impl Unusable {
    /// Whether waiting may help.
    pub fn passes(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Migration(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                remedy(error) == Remedy::Wait
            }
            _ => false,
        }
    }
}

/// Settings for statements that must never read a whole table. A plan is made once for a connection, maybe when the tables
/// are empty: so it must be right for full ones.
const PLANS: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("jit", "off"),
];

/// Opens a pool and checks the server, or says at once why not. `for_invites`: its statements are those of the worker, and
/// not an operator's questions, which may well read a whole table.
pub async fn connect(
    config: &DatabaseConfig,
    application: &str,
    for_invites: bool,
) -> Result<PgPool, Unusable> {
    let options = nodes::choose(&config.address).await?;
    let application = options.get_application_name().unwrap_or(application).to_owned();
    let options = options
        .application_name(&application)
        .options(if for_invites { &PLANS[..] } else { &[] }.iter().copied())
        .options([
            ("statement_timeout", "30s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "60s"),
        ])
        .options(config.address.settings.iter().cloned())
        .log_statements(tracing::log::LevelFilter::Off)
        .log_slow_statements(tracing::log::LevelFilter::Off, Duration::ZERO);
    let pool = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(Duration::from_secs(5))
        .test_before_acquire(false);
    let pool = match without_tls(&options) {
        Some(plain) => match pool.clone().connect_with(plain).await {
            Err(error) if is_not_allowed(&error) => pool.connect_with(options).await,
            connected => connected,
        },
        None => pool.connect_with(options).await,
    };
    let pool = pool.map_err(refused)?;
    let version: (String, String) =
        sqlx::query_as("select current_setting('server_version_num'), current_setting('server_version')")
            .fetch_one(&pool)
            .await
            .map_err(Unusable::Away)?;
    if version.0.parse::<i32>().is_ok_and(|number| number < OLDEST) {
        return Err(Unusable::TooOld(version.1));
    }
    Ok(pool)
}

/// Where TLS is preferred and no more, and the server is on this machine, nobody is there to be hidden from: an invite
/// costs less without it.
fn without_tls(options: &PgConnectOptions) -> Option<PgConnectOptions> {
    let on_this_machine = matches!(options.get_host(), "localhost" | "127.0.0.1" | "::1" | "[::1]");
    let preferred = matches!(options.get_ssl_mode(), PgSslMode::Prefer);
    (on_this_machine && preferred).then(|| options.clone().ssl_mode(PgSslMode::Disable))
}

/// Invalid authorization: the server takes nobody from here, or nobody without TLS.
fn is_not_allowed(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().is_some_and(|code| code == "28000"))
}

fn refused(error: sqlx::Error) -> Unusable {
    match &error {
        // Invalid authorization, invalid catalog (the database is not there), no privilege to connect.
        sqlx::Error::Database(inner)
            if inner
                .code()
                .is_some_and(|code| code.starts_with("28") || code == "3D000" || code == "42501") =>
        {
            Unusable::Login(inner.message().to_owned())
        }
        _ => Unusable::Away(error),
    }
}

/// Whether the last table of the migrations is there.
pub async fn has_schema(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select to_regclass('optouts') is not null").fetch_one(pool).await
}

/// Brings the schema up to date; safe when many start at once, as the migrator takes an advisory lock.
pub async fn migrate(pool: &PgPool) -> Result<(), Unusable> {
    let mut connection = pool.acquire().await.map_err(Unusable::Away)?;
    // A large table takes longer than an invite's statement may. But who waits for a lock has all others wait behind it.
    sqlx::raw_sql("set statement_timeout = 0; set lock_timeout = '2s'")
        .execute(&mut *connection)
        .await
        .map_err(Unusable::Away)?;
    let migrated = MIGRATIONS.run(&mut *connection).await;
    // Not to be used with that setting.
    let _ = connection.close().await;
    migrated.map_err(|error| match error {
        MigrateError::VersionMissing(version) => Unusable::SchemaNewer(version),
        other => Unusable::Migration(other),
    })
}
