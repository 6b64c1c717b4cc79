//! Obstacles to statements, found without running them: missing rights and tables, locks, a server that takes no writes. It
//! takes no lock and changes nothing.

use super::kinds::{StatementKind, TableRight};
use sqlx::{PgConnection, PgPool};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// A lock that is held for so long is an obstacle.
pub(crate) const HELD_FOR: Duration = Duration::from_secs(5);

/// Which statements an obstacle concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
enum About {
    Everything,
    Table(String),
    /// All but reads.
    Writes(String),
    Right(String, String),
}

/// An obstacle to statements, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    about: About,
    pub message: String,
}

impl Obstacle {
    /// Whether statements of this kind meet the obstacle.
    pub(crate) fn concerns(&self, kind: &StatementKind) -> bool {
        let needs = |table: &str, wanted: &dyn Fn(TableRight) -> bool| {
            kind.needs
                .iter()
                .any(|(name, rights)| *name == table && rights.iter().any(|right| wanted(*right)))
        };
        match &self.about {
            About::Everything => true,
            About::Table(table) => needs(table, &|_| true),
            About::Writes(table) => needs(table, &|right| right != TableRight::Select),
            About::Right(table, right) => needs(table, &|needed| needed.as_str() == right),
        }
    }

    /// Whether the server takes no writes at all.
    pub(crate) fn stops_everything(&self) -> bool {
        self.about == About::Everything
    }
}

/// When each lock was first seen, by its table and the server process that holds it or waits for it.
#[derive(Debug, Default)]
pub(crate) struct Locks(HashMap<(String, i32), Instant>);

impl Locks {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(sqlx::FromRow)]
struct ServerMode {
    standby: bool,
    read_only: bool,
    /// Where `default_transaction_read_only` is set (`pg_settings.source`).
    set_by: Option<String>,
    role: String,
    database: String,
}

#[derive(sqlx::FromRow)]
struct UnmetNeed {
    table_name: String,
    wanted: String,
    is_there: bool,
    in_schema: Option<String>,
}

#[derive(sqlx::FromRow)]
struct TableLock {
    table_name: String,
    pid: i32,
    mode: String,
    granted: bool,
    holder: Option<i32>,
    application: String,
    role: String,
}

/// All obstacles to these kinds of statements. A lock is one once it was seen for `held_for`.
pub(crate) async fn obstacles(
    connection: &mut PgConnection,
    kinds: &[&'static StatementKind],
    locks: &mut Locks,
    held_for: Duration,
) -> Result<Vec<Obstacle>, sqlx::Error> {
    let mode: ServerMode = sqlx::query_as(
        "select pg_is_in_recovery() as standby, current_setting('transaction_read_only') = 'on' as read_only,
                (select source from pg_settings where name = 'default_transaction_read_only') as set_by,
                quote_ident(current_user) as role, quote_ident(current_database()) as database",
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut found: Vec<_> = mode.obstacle().into_iter().collect();
    found.extend(unmet_needs(connection, kinds, &mode.role).await?);
    found.extend(table_locks(connection, kinds, locks, held_for).await?);
    Ok(found)
}

impl ServerMode {
    fn obstacle(&self) -> Option<Obstacle> {
        let text = match (self.standby, self.read_only) {
            (true, _) => {
                "the database is a standby and takes no writes: let DATABASE_URL name the primary, or promote it with \
                 select pg_promote()"
                    .to_owned()
            }
            (_, true) => format!(
                "the database is read-only (default_transaction_read_only is on): begin read write; {}; commit",
                self.makes_writable()
            ),
            _ => return None,
        };
        Some(Obstacle { about: About::Everything, message: text })
    }

    /// The statement that ends `default_transaction_read_only`, at the place where it is set.
    fn makes_writable(&self) -> String {
        let Self { role, database, .. } = self;
        match self.set_by.as_deref() {
            Some("user") => format!("alter role {role} reset default_transaction_read_only"),
            Some("database user") => {
                format!("alter role {role} in database {database} reset default_transaction_read_only")
            }
            Some("configuration file" | "command line") => {
                format!("alter database {database} set default_transaction_read_only = off")
            }
            _ => format!("alter database {database} reset default_transaction_read_only"),
        }
    }
}

/// Tables that are missing or hidden, and rights that the role lacks.
async fn unmet_needs(
    connection: &mut PgConnection,
    kinds: &[&'static StatementKind],
    role: &str,
) -> Result<Vec<Obstacle>, sqlx::Error> {
    let mut needed: Vec<(&str, TableRight)> = Vec::new();
    for (table, rights) in kinds.iter().flat_map(|kind| kind.needs) {
        for right in *rights {
            if !needed.contains(&(*table, *right)) {
                needed.push((*table, *right));
            }
        }
    }
    let missing: Vec<UnmetNeed> = sqlx::query_as(
        "with needed as (
             select name, wanted, to_regclass(quote_ident(name)) as id from unnest($1::text[], $2::text[]) as n (name, wanted)
         )
         select n.name as table_name, n.wanted, n.id is not null as is_there,
                case when n.id is null then
                    (select quote_ident(s.nspname) from pg_class c join pg_namespace s on s.oid = c.relnamespace
                      where c.relname = n.name and c.relkind in ('r', 'p', 'v') and not has_schema_privilege(s.oid, 'usage')
                      limit 1) end as in_schema
           from needed n
          where n.id is null or not coalesce(has_table_privilege(n.id, n.wanted), true)",
    )
    .bind(needed.iter().map(|(table, _)| *table).collect::<Vec<_>>())
    .bind(needed.iter().map(|(_, right)| right.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let mut found: Vec<Obstacle> = Vec::new();
    for row in missing {
        let obstacle = row.obstacle(role);
        found.extend((!found.contains(&obstacle)).then_some(obstacle));
    }
    Ok(found)
}

impl UnmetNeed {
    fn obstacle(self, role: &str) -> Obstacle {
        let Self { table_name: table, wanted, is_there, in_schema } = self;
        if let Some(schema) = in_schema {
            let text = format!(
                "the role {role} has no right to use the schema {schema}: grant usage on schema {schema} to {role}"
            );
            return Obstacle { about: About::Table(table), message: text };
        }
        if !is_there {
            let text = format!(
                "the table {table} is missing: rename it back, or restore it from a backup (session-invite doctor shows \
                 whether the schema is up to date)"
            );
            return Obstacle { about: About::Table(table), message: text };
        }
        let text = format!(
            "the role {role} has no right to {wanted} on the table {table}: grant {wanted} on {table} to {role}"
        );
        Obstacle { about: About::Right(table, wanted), message: text }
    }
}

/// Table locks that other processes hold or wait for, and that our statements would wait behind.
async fn table_locks(
    connection: &mut PgConnection,
    kinds: &[&'static StatementKind],
    locks: &mut Locks,
    held_for: Duration,
) -> Result<Vec<Obstacle>, sqlx::Error> {
    let mut tables: Vec<&str> = kinds.iter().flat_map(|kind| kind.needs).map(|(table, _)| *table).collect();
    tables.sort_unstable();
    tables.dedup();
    let all: Vec<TableLock> = sqlx::query_as(
        "select c.relname::text as table_name, l.pid, l.mode, l.granted,
                case when not l.granted then (pg_blocking_pids(l.pid))[1] end as holder,
                coalesce(a.application_name, '') as application, coalesce(a.usename::text, '') as role
           from pg_locks l
           join pg_class c on c.oid = l.relation
           left join pg_stat_activity a on a.pid = l.pid
          where l.locktype = 'relation' and l.database = (select oid from pg_database where datname = current_database())
            and l.relation in (select to_regclass(quote_ident(t)) from unnest($1::text[]) as t)
            and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')",
    )
    .bind(tables)
    .fetch_all(connection)
    .await?;
    let now = Instant::now();
    locks.0.retain(|(table, pid), _| all.iter().any(|held| held.table_name == *table && held.pid == *pid));
    let mut found = Vec::new();
    for held in all {
        let since = *locks.0.entry((held.table_name.clone(), held.pid)).or_insert(now);
        if now - since >= held_for {
            found.push(held.obstacle());
        }
    }
    Ok(found)
}

/// How the transaction of a process of the server is ended.
fn end_by(pid: i32) -> String {
    format!(
        "What to do: end its transaction where it runs, or, if that may lose its work, in psql as that role or a superuser: \
         select pg_terminate_backend({pid})"
    )
}

impl TableLock {
    fn obstacle(self) -> Obstacle {
        let Self { table_name: table, pid, mode, granted, holder, application, role } = self;
        let who = format!("{application:?}, role {role}");
        let (text, to_end) = match (granted, holder) {
            (false, Some(holder)) => (
                format!(
                    "process {pid} ({who}) waits for a {mode} on the table {table} behind process {holder}, and all others wait \
                     behind it"
                ),
                holder,
            ),
            _ => (format!("process {pid} ({who}) holds a {mode} on the table {table}"), pid),
        };
        let text = format!("{text}. {}", end_by(to_end));
        let about = if mode == "AccessExclusiveLock" { About::Table(table) } else { About::Writes(table) };
        Obstacle { about, message: text }
    }
}

/// The same, for a command.
pub(crate) async fn lock_holders(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    holders(&mut *pool.acquire().await?).await
}

/// The processes whose locks, on a row or a table, our statements wait for at this moment.
pub(super) async fn holders(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let holders: Vec<(i32, String, String)> = sqlx::query_as(
        "select distinct b.pid, coalesce(b.application_name, ''), coalesce(b.usename::text, '')
           from pg_stat_activity w
          cross join lateral unnest(pg_blocking_pids(w.pid)) as h (pid)
           join pg_stat_activity b on b.pid = h.pid
          where w.datname = current_database() and w.usename = current_user and w.wait_event_type = 'Lock'
            and w.application_name = current_setting('application_name')",
    )
    .fetch_all(connection)
    .await?;
    let text = |(pid, application, role)| {
        format!("process {pid} ({application:?}, role {role}) holds what it waits for. {}", end_by(pid))
    };
    Ok(holders.into_iter().map(text).collect())
}
