//! What an error from the database means.

use super::sqlstate::{self, ErrorAction};
use sqlx::migrate::MigrateError;
use std::io::ErrorKind;

/// SQLSTATE `query_canceled`.
const QUERY_CANCELED: &str = "57014";

/// What to do about an error from the database.
pub(crate) fn action(error: &sqlx::Error) -> ErrorAction {
    match error {
        // A server that is not compared yet (`sessions/rewinds.rs`).
        sqlx::Error::Io(error) if error.kind() == ErrorKind::WouldBlock => ErrorAction::Wait,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            ErrorAction::RetireConnections
        }
        sqlx::Error::PoolTimedOut => ErrorAction::Wait,
        sqlx::Error::Database(error) => {
            error.code().map_or(ErrorAction::Refuse, |code| sqlstate::action(&code))
        }
        _ => ErrorAction::Refuse,
    }
}

/// Whether the statement may have been carried out in spite of the error.
pub(crate) fn may_hide_a_commit(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| sqlstate::may_hide_a_commit(&code)),
        sqlx::Error::PoolTimedOut => false,
        sqlx::Error::Io(error) => error.kind() != ErrorKind::WouldBlock,
        _ => true,
    }
}

/// The error of a statement, which may be transient.
pub(crate) trait StatementError: From<sqlx::Error> {
    /// sqlx's error, if that is the cause.
    fn database_error(&self) -> Option<&sqlx::Error>;
    /// The cause in words, without any of the statement's values.
    fn summary(&self) -> String;
    /// Whether the statement was ended, mostly as it took longer than `statement_timeout`.
    fn is_canceled(&self) -> bool {
        let error = self.database_error().and_then(sqlx::Error::as_database_error);
        error.is_some_and(|error| error.code().as_deref() == Some(QUERY_CANCELED))
    }
    /// Whether the same statement may succeed later.
    fn is_transient(&self) -> bool {
        self.database_error().is_some_and(|error| action(error) != ErrorAction::Refuse)
    }
}

impl StatementError for sqlx::Error {
    fn database_error(&self) -> Option<&sqlx::Error> {
        Some(self)
    }

    /// It leaves out PostgreSQL's detail, which repeats the row.
    fn summary(&self) -> String {
        match self {
            Self::Database(error) => {
                let code = error.code().unwrap_or_default();
                let pooler = match &*code {
                    "26000" | "42P05" => {
                        ": a pooler such as pgbouncer has to pool by session (pool_mode = session); or connect without it"
                    }
                    _ => "",
                };
                format!("{} ({code}){pooler}", error.message())
            }
            Self::PoolTimedOut => "the pool has no free connection to the database".to_owned(),
            Self::Io(error) => error.to_string(),
            other => other.to_string(),
        }
    }
}

/// Why the database cannot be used at all, with what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnusableDatabase {
    #[error("the database refuses the login: {0}; check the user, password and database of DATABASE_URL")]
    Login(String),
    #[error("PostgreSQL {0} is too old: version 13 or later is needed")]
    TooOld(String),
    #[error(
        "the database's encoding is {0}, and UTF8 is needed: create database NAME encoding 'UTF8' template template0"
    )]
    Encoding(String),
    #[error(
        "the pooler before the database refuses a startup parameter: {0}; session-invite needs only those that every \
         client sends, so remove it from DATABASE_URL, or name it in pgbouncer's ignore_startup_parameters"
    )]
    Pooler(String),
    #[error(
        "{0}: the server refuses a setting in its options, or this role may not set it (SQLSTATE {1}); correct it or \
         remove it"
    )]
    Setting(&'static str, String),
    #[error("the database is away ({0})")]
    Away(String),
    /// Of several nodes, with a cause for each that does not pass by itself.
    #[error("no node of the database can be used: {0}")]
    NoNode(String),
    #[error(
        "the schema is not up to date ({missing} migrations are missing): run session-invite migrate, or start a worker"
    )]
    SchemaOld { missing: usize },
    #[error(
        "the schema is not up to date ({missing} migrations are missing), and this role may not change it: {error}; run \
         session-invite migrate as a role that may create in the schema and owns its tables"
    )]
    MayNotMigrate { missing: usize, error: String },
    #[error(
        "the role {role} has no right to use the schema {schema}: grant usage on schema {schema} to {role}"
    )]
    SchemaHidden { schema: String, role: String },
    #[error("the migrations failed: {0}")]
    Migration(MigrateError),
}

impl UnusableDatabase {
    /// The cause alone, for a text that names the node already.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Away(why) => why.clone(),
            other => other.to_string(),
        }
    }

    /// Whether waiting may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Away(_) | Self::SchemaOld { .. } | Self::SchemaHidden { .. } => true,
            Self::Migration(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                !matches!(action(error), ErrorAction::Refuse | ErrorAction::End)
            }
            _ => false,
        }
    }
}
