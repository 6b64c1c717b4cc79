//! The schema: whether it is up to date, and bringing it there.

use super::error::{Passing, Unusable};
use sqlx::{
    PgConnection, PgPool,
    migrate::{MigrateError, Migration},
};
use std::collections::BTreeMap;

/// The migrations in `migrations/`, embedded.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// How the database's migrations differ from the program's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schema {
    /// To come.
    pub missing: usize,
    /// The newest that this program does not know.
    pub newer: Option<i64>,
    /// One that is not what this program has under its number.
    pub changed: Option<i64>,
    /// Where nothing can be seen of it.
    pub hidden: Option<Hidden>,
}

/// A schema with our tables that the role has no right to use.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Hidden {
    pub schema: String,
    pub role: String,
}

impl Schema {
    /// Reads it, and changes nothing.
    pub async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let begun: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
            .fetch_one(&mut *connection)
            .await?;
        let hidden = if begun { None } else { Hidden::find(connection).await? };
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

impl Hidden {
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

/// Brings the schema up to date; safe when many start at once, as the migrator takes an advisory lock. Where nothing is
/// missing, nothing is written, and reading is all that it takes.
pub async fn migrate(pool: &PgPool) -> Result<Schema, Unusable> {
    let mut connection = pool.acquire().await.map_err(|error| away(&error))?;
    let schema = Schema::read(&mut connection).await.map_err(|error| away(&error))?;
    if schema.missing == 0 && schema.changed.is_none() {
        return Ok(schema);
    }
    if let Some(hidden) = schema.hidden {
        return Err(hidden.into());
    }
    // A large table takes longer than an invite's statement may. But who waits for a lock has all others wait behind it.
    sqlx::raw_sql("set statement_timeout = 0; set lock_timeout = '2s'")
        .execute(&mut *connection)
        .await
        .map_err(|error| away(&error))?;
    let migrated = MIGRATIONS.run(&mut *connection).await;
    // Not to be used with that setting.
    let _ = connection.close().await;
    match migrated {
        Ok(()) => Ok(schema),
        Err(MigrateError::VersionMissing(version)) => Err(Unusable::SchemaNewer(version)),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) if is_denied(&error) => {
            Err(Unusable::MayNotMigrate { missing: schema.missing, error: error.summary() })
        }
        Err(error) => Err(Unusable::Migration(error)),
    }
}

impl From<Hidden> for Unusable {
    fn from(Hidden { schema, role }: Hidden) -> Self {
        Self::SchemaHidden { schema, role }
    }
}

fn is_denied(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().is_some_and(|code| code == "42501"))
}

fn away(error: &sqlx::Error) -> Unusable {
    Unusable::Away(error.summary())
}

/// For a process that does not change the schema.
pub(super) async fn up_to_date(connection: &mut PgConnection) -> Result<Schema, Unusable> {
    let schema = Schema::read(connection).await.map_err(|error| away(&error))?;
    match schema {
        Schema { hidden: Some(hidden), .. } => Err(hidden.into()),
        Schema { missing: 0, .. } => Ok(schema),
        Schema { missing, .. } => Err(Unusable::SchemaOld { missing }),
    }
}
