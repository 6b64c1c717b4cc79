//! What an error from the database means.

use super::sqlstate::{self, Action};
use sqlx::migrate::MigrateError;

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

/// An error that may pass by itself.
pub trait Passing: From<sqlx::Error> {
    /// The database's own error, if that is what it is.
    fn database_error(&self) -> Option<&sqlx::Error>;
    /// In words that hold none of the statement's values.
    fn summary(&self) -> String;
    /// Whether the same statement may well succeed later.
    fn passes(&self) -> bool {
        self.database_error().is_some_and(|error| action(error) != Action::Refuse)
    }
}

impl Passing for sqlx::Error {
    fn database_error(&self) -> Option<&sqlx::Error> {
        Some(self)
    }

    /// Without PostgreSQL's detail, which repeats the row.
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
            Self::PoolTimedOut => "no connection to the database is to be had".to_owned(),
            Self::Io(error) => error.to_string(),
            other => other.to_string(),
        }
    }
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
