//! Check of locks: statements of this database that wait for others, and who holds what they wait for.

use super::finding::Finding;
use sqlx::PgPool;

pub(super) const LOCKS: &str = "locks";
/// Seconds after which a wait is reported.
const WAITS_FOR: f64 = 1.0;
/// Words of the holder's statement that are shown at most.
const WORDS: usize = 5;

#[derive(sqlx::FromRow)]
struct Holder {
    pid: i32,
    role: String,
    application: String,
    is_superuser: bool,
    /// These three are hidden from a role that may not see the holder's statements (`pg_read_all_stats`).
    state: Option<String>,
    /// Seconds since its transaction began.
    since: Option<f64>,
    statement: Option<String>,
    /// Seconds since the longest wait for it began.
    waits: f64,
    waiting: i64,
}

/// A finding for each process that others wait for and that waits for none itself.
pub(super) async fn examine(pool: &PgPool) -> Result<Vec<Finding>, sqlx::Error> {
    let holders: Vec<Holder> = sqlx::query_as(
        "select h.pid, coalesce(h.usename::text, '') as role, coalesce(h.application_name, '') as application,
                coalesce((select rolsuper from pg_roles where rolname = h.usename), false) as is_superuser, h.state,
                extract(epoch from clock_timestamp() - min(h.xact_start))::float8 as since,
                coalesce(extract(epoch from clock_timestamp() - min(w.query_start)), 0)::float8 as waits,
                count(*) as waiting, left(min(h.query), 200) as statement
           from pg_stat_activity w
          cross join lateral unnest(pg_blocking_pids(w.pid)) as b (pid)
           join pg_stat_activity h on h.pid = b.pid
          where w.datname = current_database() and w.wait_event_type = 'Lock'
            and cardinality(pg_blocking_pids(h.pid)) = 0
          group by h.pid, h.usename, h.application_name, h.state
         having coalesce(extract(epoch from clock_timestamp() - min(w.query_start)), 0) > $1
          order by waits desc limit 10",
    )
    .bind(WAITS_FOR)
    .fetch_all(pool)
    .await?;
    if holders.is_empty() {
        return Ok(vec![Finding::ok(LOCKS, "no statement waits for another's lock")]);
    }
    Ok(holders.iter().map(Holder::finding).collect())
}

impl Holder {
    fn finding(&self) -> Finding {
        let Self { pid, role, application, waits, waiting, .. } = self;
        let what_it_does = match (&self.state, self.since) {
            (Some(state), Some(since)) => {
                let statement = first_words(self.statement.as_deref().unwrap_or_default());
                format!(", {state}, its transaction is {since:.0} s old: {statement}")
            }
            _ => String::new(),
        };
        let found = format!(
            "{waiting} statements wait, the longest for {waits:.0} s, for a lock of process {pid} (role {role}, \
             {application:?}{what_it_does})"
        );
        let by_whom = if self.is_superuser { ", as a superuser" } else { "" };
        let remedy =
            format!("let its owner end that transaction, or{by_whom}: select pg_terminate_backend({pid})");
        Finding::failed(LOCKS, found, remedy)
    }
}

/// The first words of a statement, without any value.
fn first_words(statement: &str) -> String {
    let before_values = statement.split(['\'', '$', '"']).next().unwrap_or_default();
    let words = before_values.split_whitespace().filter(|word| !word.bytes().any(|b| b.is_ascii_digit()));
    words.take(WORDS).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_statement_only_words_are_shown() {
        for (statement, shown) in [
            ("update sessions set phone = '+12015550123'", "update sessions set phone ="),
            ("lock table sessions", "lock table sessions"),
            ("select 12015550123", "select"),
            ("", ""),
        ] {
            assert_eq!(first_words(statement), shown, "{statement}");
        }
    }
}
