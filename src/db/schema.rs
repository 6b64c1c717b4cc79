//! The schema: whether it is up to date, and its migrations.

use super::error::{StatementError, UnusableDatabase};
use sqlx::{
    PgConnection, PgPool,
    migrate::{MigrateError, Migration, Migrator},
};
use std::{borrow::Cow, collections::BTreeMap};

/// The migrations in `migrations/`, embedded.
pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!();

/// How the database's migrations differ from the program's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Schema {
    /// How many are not applied yet.
    pub missing: usize,
    /// The newest one that this program does not know.
    pub newer: Option<i64>,
    /// One that differs from the program's migration of that number.
    pub changed: Option<i64>,
    /// The schema with our tables, when the role may not use it.
    pub hidden: Option<HiddenSchema>,
}

/// A schema with our tables that the role may not use.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct HiddenSchema {
    pub schema: String,
    pub role: String,
}

impl Schema {
    /// Reads the state, and changes nothing.
    pub(crate) async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let begun: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
            .fetch_one(&mut *connection)
            .await?;
        let hidden = if begun { None } else { HiddenSchema::find(connection).await? };
        let applied: BTreeMap<i64, Vec<u8>> = if begun {
            let all = "select version, checksum from _sqlx_migrations where success";
            sqlx::query_as(all).fetch_all(connection).await?.into_iter().collect()
        } else {
            BTreeMap::new()
        };
        let is_changed = |migration: &&Migration| {
            applied.get(&migration.version).is_some_and(|checksum| **checksum != *migration.checksum)
        };
        Ok(Self {
            missing: MIGRATIONS.iter().filter(|migration| !applied.contains_key(&migration.version)).count(),
            newer: applied.keys().rev().find(|version| !MIGRATIONS.version_exists(**version)).copied(),
            changed: MIGRATIONS.iter().find(is_changed).map(|migration| migration.version),
            hidden,
        })
    }
}

impl HiddenSchema {
    async fn find(connection: &mut PgConnection) -> Result<Option<Self>, sqlx::Error> {
        sqlx::query_as(
            "select quote_ident(s.nspname) as schema, quote_ident(current_user) as role
               from unnest(string_to_array(current_setting('search_path'), ',')) as p (name)
               join pg_namespace s on s.nspname = replace(trim(both ' \"' from p.name), '$user', current_user)
               join pg_class c on c.relnamespace = s.oid and c.relname = '_sqlx_migrations'
              where not has_schema_privilege(s.oid, 'usage')
              limit 1",
        )
        .fetch_optional(connection)
        .await
    }
}

/// Brings the schema up to date. Many processes may do so at once: the migrator takes an advisory lock. When no migration is
/// missing, it only reads.
pub(crate) async fn migrate(pool: &PgPool) -> Result<Schema, UnusableDatabase> {
    let mut connection = pool.acquire().await.map_err(|error| away(&error))?;
    let schema = Schema::read(&mut connection).await.map_err(|error| away(&error))?;
    if schema.missing == 0 && schema.changed.is_none() {
        return Ok(schema);
    }
    if let Some(hidden) = schema.hidden {
        return Err(hidden.into());
    }
    // A migration of a large table takes longer than an invite's statement may. Its wait for a lock stays short, because
    // all other statements then wait behind it.
    sqlx::raw_sql("set statement_timeout = 0; set lock_timeout = '2s'")
        .execute(&mut *connection)
        .await
        .map_err(|error| away(&error))?;
    // A newer release may have migrated already, as when this one is a correction of the release before it: its own
    // migrations are then applied too.
    let known = Migrator {
        migrations: Cow::Borrowed(&MIGRATIONS.migrations),
        ignore_missing: true,
        ..Migrator::DEFAULT
    };
    let migrated = known.run(&mut *connection).await;
    // No statement of an invite may use a connection with these settings.
    let _ = connection.close().await;
    match migrated {
        Ok(()) => Ok(schema),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) if is_denied(&error) => {
            Err(UnusableDatabase::MayNotMigrate { missing: schema.missing, error: error.summary() })
        }
        Err(error) => Err(UnusableDatabase::Migration(error)),
    }
}

impl From<HiddenSchema> for UnusableDatabase {
    fn from(HiddenSchema { schema, role }: HiddenSchema) -> Self {
        Self::SchemaHidden { schema, role }
    }
}

fn is_denied(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().is_some_and(|code| code == "42501"))
}

fn away(error: &sqlx::Error) -> UnusableDatabase {
    UnusableDatabase::Away(error.summary())
}

/// Checks the schema for a process that does not migrate it.
pub(super) async fn up_to_date(connection: &mut PgConnection) -> Result<Schema, UnusableDatabase> {
    let schema = Schema::read(connection).await.map_err(|error| away(&error))?;
    match schema {
        Schema { hidden: Some(hidden), .. } => Err(hidden.into()),
        Schema { missing: 0, .. } => Ok(schema),
        Schema { missing, .. } => Err(UnusableDatabase::SchemaOld { missing }),
    }
}
