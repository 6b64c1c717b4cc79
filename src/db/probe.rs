//! What stands in the way of statements, looked at without running them: rights, tables, locks, a server that takes no
//! writes. It takes no lock and changes nothing.

use super::kinds::{Kind, Right};
use sqlx::PgConnection;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// A lock that is held for so long counts as a database that is away.
pub const HELD_FOR: Duration = Duration::from_secs(5);

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum About {
    Everything,
    Table(String),
    /// Reading goes on.
    Writes(String),
    Right(String, &'static str),
}

/// Something that stands in the way, in words, with what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    about: About,
    pub message: String,
}

impl Obstacle {
    /// Whether it stands in the way of this kind of statement.
    pub fn concerns(&self, kind: &Kind) -> bool {
        let needs = |table: &str, wanted: &dyn Fn(Right) -> bool| {
            kind.needs
                .iter()
                .any(|(name, rights)| *name == table && rights.iter().any(|right| wanted(*right)))
        };
        match &self.about {
            About::Everything => true,
            About::Table(table) => needs(table, &|_| true),
            About::Writes(table) => needs(table, &|right| right != Right::Select),
            About::Right(table, right) => needs(table, &|needed| needed.as_str() == *right),
        }
    }

    /// Whether the server takes no writes at all.
    pub fn is_of_everything(&self) -> bool {
        self.about == About::Everything
    }
}

/// Who holds a lock on a table, and since when that was seen.
#[derive(Debug, Default)]
pub struct Locks(HashMap<(String, i32), Instant>);

impl Locks {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(sqlx::FromRow)]
struct Whole {
    standby: bool,
    read_only: bool,
    role: String,
    database: String,
}

#[derive(sqlx::FromRow)]
struct Missing {
    table_name: String,
    wanted: String,
    is_there: bool,
    in_schema: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Held {
    table_name: String,
    pid: i32,
    mode: String,
    granted: bool,
    holder: Option<i32>,
    application: String,
    role: String,
}

/// All that stands in the way of these kinds of statements; of locks, those that were seen for `held_for`.
pub async fn obstacles(
    connection: &mut PgConnection,
    kinds: &[&'static Kind],
    locks: &mut Locks,
    held_for: Duration,
) -> Result<Vec<Obstacle>, sqlx::Error> {
    let whole: Whole = sqlx::query_as(
        "select pg_is_in_recovery() as standby, current_setting('transaction_read_only') = 'on' as read_only,
                quote_ident(current_user) as role, quote_ident(current_database()) as database",
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut found: Vec<_> = whole.obstacle().into_iter().collect();
    found.extend(rights(connection, kinds, &whole.role).await?);
    found.extend(held(connection, kinds, locks, held_for).await?);
    Ok(found)
}

impl Whole {
    fn obstacle(&self) -> Option<Obstacle> {
        let database = &self.database;
        let text = match (self.standby, self.read_only) {
            (true, _) => {
                "the database is a standby and takes no writes: let DATABASE_URL name the primary, or promote it with \
                 select pg_promote()"
                    .to_owned()
            }
            (_, true) => format!(
                "the database is read-only (default_transaction_read_only is on): alter database {database} reset \
                 default_transaction_read_only; or the same of the role {role}, or of the server",
                role = self.role
            ),
            _ => return None,
        };
        Some(Obstacle { about: About::Everything, message: text })
    }
}

async fn rights(
    connection: &mut PgConnection,
    kinds: &[&'static Kind],
    role: &str,
) -> Result<Vec<Obstacle>, sqlx::Error> {
    let mut needed: Vec<(&str, Right)> = Vec::new();
    for (table, rights) in kinds.iter().flat_map(|kind| kind.needs) {
        for right in *rights {
            if !needed.contains(&(*table, *right)) {
                needed.push((*table, *right));
            }
        }
    }
    let missing: Vec<Missing> = sqlx::query_as(
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

impl Missing {
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
        let right = [Right::Select, Right::Insert, Right::Update, Right::Delete].map(Right::as_str);
        let right = right.into_iter().find(|right| *right == wanted).unwrap_or_default();
        let text = format!(
            "the role {role} has no right to {right} on the table {table}: grant {right} on {table} to {role}"
        );
        Obstacle { about: About::Right(table, right), message: text }
    }
}

/// Locks that others hold, or wait for, and that keep statements waiting behind them.
async fn held(
    connection: &mut PgConnection,
    kinds: &[&'static Kind],
    locks: &mut Locks,
    held_for: Duration,
) -> Result<Vec<Obstacle>, sqlx::Error> {
    let mut tables: Vec<&str> = kinds.iter().flat_map(|kind| kind.needs).map(|(table, _)| *table).collect();
    tables.sort_unstable();
    tables.dedup();
    let all: Vec<Held> = sqlx::query_as(
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

impl Held {
    fn obstacle(self) -> Obstacle {
        let Self { table_name: table, pid, mode, granted, holder, application, role } = self;
        let who = format!("{application:?}, role {role}");
        let (text, to_end) = match (granted, holder) {
            (false, Some(holder)) => (
                format!(
                    "process {pid} ({who}) waits for a {mode} on the table {table} behind process {holder}, and all wait behind it"
                ),
                holder,
            ),
            _ => (format!("process {pid} ({who}) holds a {mode} on the table {table}"), pid),
        };
        let text = format!("{text}: end its transaction, or select pg_terminate_backend({to_end})");
        let about = if mode == "AccessExclusiveLock" { About::Table(table) } else { About::Writes(table) };
        Obstacle { about, message: text }
    }
}

/// Who holds up statements of ours at this moment, by a lock on a row or a table.
pub async fn holders(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
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
        format!(
            "process {pid} ({application:?}, role {role}) holds what it waits for: end its transaction, or select \
             pg_terminate_backend({pid})"
        )
    };
    Ok(holders.into_iter().map(text).collect())
}
