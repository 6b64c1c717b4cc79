//! The database's marker, by which a loss of committed rows is noticed: a number that workers advance, of which the broker
//! keeps a copy.

use super::{
    claim_times::{ClaimTimes, span},
    rewinds::Rewinds,
    server_run::{self, ServerRun},
};
use crate::db::{self, kinds};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Transaction, pool::PoolConnection};
use std::time::Duration;
use uuid::Uuid;

/// The advisory lock of the worker that compares: `marker` in ASCII.
const LOCK: i64 = 0x6d_61_72_6b_65_72;

/// The marker, with the server that has it. The broker keeps it as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// Of this schema and its copies.
    pub(crate) lineage: Uuid,
    /// Only ever grows.
    pub(crate) number: i64,
    /// The server's system identifier; `None` if the role may not read it.
    pub(crate) system: Option<i64>,
    pub(crate) timeline: i32,
    /// Whether a commit waited for a standby when this was written.
    pub(crate) is_replicated: bool,
}

/// The table of the marker.
#[derive(Debug, Clone)]
pub(crate) struct MarkerTable {
    pool: PgPool,
    rewinds: Rewinds,
    times: ClaimTimes,
}

/// A comparison of one server with the last marker; no other worker compares meanwhile.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    /// The lock lasts as long as this.
    transaction: Transaction<'a, Postgres>,
    marker: Marker,
    server: ServerRun,
    /// Whether the queue has had the marker before.
    had_copy: bool,
    table: &'a MarkerTable,
}

impl MarkerTable {
    pub(crate) fn new(pool: PgPool, rewinds: Rewinds, times: ClaimTimes) -> Self {
        Self { pool, rewinds, times }
    }

    /// From now on, every server has to be compared before an invite uses it.
    pub(crate) fn require_comparison(&self) {
        self.rewinds.require_comparison();
    }

    /// Whether invites wait for a comparison.
    pub(crate) fn is_comparison_due(&self) -> bool {
        self.rewinds.is_comparison_due()
    }

    /// Waits until a server has to be compared.
    pub(crate) async fn comparison_needed(&self) {
        self.rewinds.comparison_needed().await;
    }

    /// A connection for one round. Invites hold none while they wait for a comparison.
    pub(crate) async fn acquire(&self) -> Result<MarkerConnection, sqlx::Error> {
        Ok(MarkerConnection { connection: self.pool.acquire().await?, table: self.clone() })
    }
}

/// A connection to advance or to compare the marker on.
#[derive(Debug)]
pub(crate) struct MarkerConnection {
    connection: PoolConnection<Postgres>,
    table: MarkerTable,
}

impl MarkerConnection {
    /// Advances the marker, unless another worker did so within `every`.
    pub(crate) async fn advance(&mut self, every: Duration) -> Result<Advance, sqlx::Error> {
        let advanced = db::with_time_limit(Box::pin(self.read_and_advance(every))).await;
        kinds::KEEP_MARKER.note(&advanced);
        advanced
    }

    async fn read_and_advance(&mut self, every: Duration) -> Result<Advance, sqlx::Error> {
        let rewinds = &self.table.rewinds;
        let highest = rewinds.highest();
        let MarkerState { marker, server, last_rewind_ago } = read(&mut self.connection).await?;
        if !rewinds.check(server, marker.number, highest) {
            return Ok(Advance::NotCompared);
        }
        rewinds.set_last(last_rewind_ago);
        let number = advance(&mut self.connection, every).await?.unwrap_or(marker.number);
        rewinds.advanced(number);
        Ok(Advance::To(Marker { number, ..marker }))
    }

    /// Begins a comparison of this server, with the copy of its marker in `queue`.
    pub(crate) async fn compare<'a>(&'a mut self, queue: &str) -> Result<Comparison<'a>, sqlx::Error> {
        db::with_time_limit(Box::pin(self.begin_comparison(queue))).await
    }

    async fn begin_comparison<'a>(&'a mut self, queue: &str) -> Result<Comparison<'a>, sqlx::Error> {
        let mut transaction = self.connection.begin().await?;
        // The server ends the comparison of a worker that is stopped: all others wait for it.
        sqlx::query("set local idle_in_transaction_session_timeout = '10s'")
            .execute(&mut *transaction)
            .await?;
        lock(&mut transaction).await?;
        let MarkerState { marker, server, .. } = read(&mut transaction).await?;
        if !server.takes_writes() {
            return Err(sqlx::Error::Protocol("the server takes no writes".to_owned()));
        }
        let marker = Marker { system: system(&mut transaction).await?, ..marker };
        let had_copy = note_copy(&mut transaction, queue).await?;
        Ok(Comparison { transaction, marker, server, had_copy, table: &self.table })
    }
}

/// What became of an attempt to advance the marker.
#[derive(Debug)]
pub(crate) enum Advance {
    /// By this worker or another, which may serve another queue.
    To(Marker),
    /// The server has to be compared first.
    NotCompared,
}

impl Comparison<'_> {
    /// The marker that this server has.
    pub(crate) fn marker(&self) -> &Marker {
        &self.marker
    }

    /// Whether the queue has had the marker before.
    pub(crate) fn had_copy(&self) -> bool {
        self.had_copy
    }

    /// Reads the database's marker again, as other workers advance it meanwhile.
    pub(crate) async fn read_again(&mut self) -> Result<(), sqlx::Error> {
        let state = db::with_time_limit(Box::pin(read(&mut self.transaction))).await?;
        self.marker.number = state.marker.number;
        Ok(())
    }

    /// What shows that rows were lost since one of these markers was kept, and the highest number that was; `None` if nothing
    /// does. A queue that had the marker and has none any more shows nothing, so that rows may be lost.
    pub(crate) fn loss(&self, kept: impl Iterator<Item = Marker>) -> Option<(String, i64)> {
        let last = kept.filter(|last| last.lineage == self.marker.lineage).max_by_key(|last| last.number);
        match last {
            Some(last) => Some((self.marker.rewind_since(&last)?, last.number)),
            None if self.had_copy => {
                Some(("the broker has no copy of its marker any more".to_owned(), self.marker.number))
            }
            None => None,
        }
    }

    /// Records that rows were lost, and advances the marker beyond `last`.
    pub(crate) async fn record_rewind(&mut self, why: &str, last: i64) -> Result<(), sqlx::Error> {
        self.marker.number = record_rewind(&mut self.transaction, why, last, self.table.times).await?;
        Ok(())
    }

    /// Lets invites use this server from now on.
    pub(crate) async fn finish(self) -> Result<Marker, sqlx::Error> {
        db::with_time_limit(Box::pin(self.commit())).await
    }

    async fn commit(mut self) -> Result<Marker, sqlx::Error> {
        let rewinds = &self.table.rewinds;
        rewinds.set_last(read(&mut self.transaction).await?.last_rewind_ago);
        self.transaction.commit().await?;
        rewinds.compared(self.server, self.marker.number);
        Ok(self.marker)
    }
}

/// The marker as it is in the database, and when the last loss of rows was noticed.
#[derive(Debug, Clone)]
struct MarkerState {
    marker: Marker,
    server: ServerRun,
    last_rewind_ago: Option<Duration>,
}

#[derive(sqlx::FromRow)]
struct MarkerRow {
    #[sqlx(flatten)]
    server: ServerRun,
    lineage: Uuid,
    number: i64,
    is_replicated: bool,
    last_rewind_ago: Option<f64>,
}

/// Reads the marker, without the system identifier.
async fn read(connection: &mut PgConnection) -> Result<MarkerState, sqlx::Error> {
    let row: MarkerRow = sqlx::query_as(AssertSqlSafe(format!(
        "select {}, m.lineage, m.number,
                current_setting('synchronous_standby_names') <> ''
                    and current_setting('synchronous_commit') not in ('off', 'local') as is_replicated,
                (select extract(epoch from now() - max(noticed_at))::float8 from database_rewinds) as last_rewind_ago
           from database_marker m",
        server_run::columns()
    )))
    .fetch_one(connection)
    .await?;
    let MarkerRow { server, lineage, number, is_replicated, last_rewind_ago } = row;
    let marker = Marker { lineage, number, system: None, timeline: server.timeline, is_replicated };
    Ok(MarkerState { marker, server, last_rewind_ago: last_rewind_ago.map(span) })
}

/// The server's system identifier; `None` if the role may not read it.
async fn system(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    let may_read: bool =
        sqlx::query_scalar("select has_function_privilege('pg_control_system()', 'execute')")
            .fetch_one(&mut *connection)
            .await?;
    if !may_read {
        return Ok(None);
    }
    sqlx::query_scalar("select system_identifier from pg_control_system()")
        .fetch_one(connection)
        .await
        .map(Some)
}

/// Waits until no other worker compares. The lock lasts as long as the transaction.
async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(connection).await.map(drop)
}

/// Notes that the queue has the marker from now on; answers whether it had it before.
async fn note_copy(connection: &mut PgConnection, queue: &str) -> Result<bool, sqlx::Error> {
    let noted = sqlx::query("insert into database_marker_copies (queue) values ($1) on conflict do nothing")
        .bind(queue)
        .execute(connection)
        .await?;
    Ok(noted.rows_affected() == 0)
}

/// Advances the marker if it was not advanced for `every`; answers its new number.
async fn advance(connection: &mut PgConnection, every: Duration) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "update database_marker set number = number + 1, advanced_at = now()
          where advanced_at < now() - make_interval(secs => $1) or advanced_at > now() + interval '1 second'
         returning number",
    )
    .bind(every.as_secs_f64())
    .fetch_optional(connection)
    .await
}

/// Records that rows were lost, and that nothing is known of the open invites' texts: what their rows say may be older than
/// their last try, which may have had another key and token. With a new fence, no worker acts on what it has read of a row before. Advances the marker beyond `beyond`.
async fn record_rewind(
    connection: &mut PgConnection,
    why: &str,
    beyond: i64,
    times: ClaimTimes,
) -> Result<i64, sqlx::Error> {
    // Of many open sessions, this takes longer than an invite's statement may.
    sqlx::query("set local statement_timeout = 0").execute(&mut *connection).await?;
    sqlx::query("insert into database_rewinds (why) values ($1)").bind(why).execute(&mut *connection).await?;
    sqlx::query(
        "update sessions
            set text_state = 'unknown', fence = 1 + floor(random() * 9e18)::bigint, looks = 0, looked_at = null, updated_at = now(),
                look_since = least(look_since, created_at),
                -- Not now(): the transaction may have waited for the broker.
                unsure_from = clock_timestamp() + make_interval(secs => $1),
                lease_until = clock_timestamp() + make_interval(secs => $1 + $2)
          where key_held and status = 'sending'",
    )
    .bind(times.ends.as_secs_f64())
    .bind(times.settle.as_secs_f64())
    .execute(&mut *connection)
    .await?;
    let number = sqlx::query_scalar(
        "update database_marker set number = greatest(number, $1) + 1, advanced_at = now() returning number",
    )
    .bind(beyond)
    .fetch_one(&mut *connection)
    .await?;
    Ok(number)
}

impl Marker {
    /// Whether a worker can have written it: the number grows once a second.
    pub(crate) fn is_plausible(&self) -> bool {
        (0..i64::MAX / 2).contains(&self.number)
    }

    /// What shows that the database with this marker has lost rows since `last` was kept; `None` if nothing does.
    pub(crate) fn rewind_since(&self, last: &Self) -> Option<String> {
        if self.lineage != last.lineage {
            // Another database, which never had the rows.
            return None;
        }
        if self.number < last.number {
            return Some(format!("its marker is {}, and the broker's is {}", self.number, last.number));
        }
        if let (Some(ours), Some(theirs)) = (self.system, last.system)
            && ours != theirs
        {
            return Some(format!("its system identifier is {ours}, and was {theirs}"));
        }
        if self.timeline != last.timeline && !last.is_replicated {
            let (ours, theirs) = (self.timeline, last.timeline);
            return Some(format!(
                "its timeline is {ours}, and was {theirs}, whose commits waited for no standby"
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(number: i64) -> Marker {
        Marker { lineage: Uuid::from_u128(1), number, system: Some(7), timeline: 1, is_replicated: false }
    }

    #[test]
    fn a_lower_number_another_system_or_a_new_timeline_shows_a_loss() {
        let last = marker(10);
        assert_eq!(marker(10).rewind_since(&last), None);
        assert_eq!(marker(12).rewind_since(&last), None);
        assert!(marker(9).rewind_since(&last).unwrap().contains("marker is 9"));
        let other = Marker { system: Some(8), ..marker(10) };
        assert!(other.rewind_since(&last).unwrap().contains("identifier is 8"));
        assert_eq!(Marker { system: None, ..marker(10) }.rewind_since(&last), None);
        let promoted = Marker { timeline: 2, ..marker(11) };
        assert!(promoted.rewind_since(&last).unwrap().contains("timeline is 2"));
    }

    #[test]
    fn a_promoted_synchronous_standby_has_lost_nothing_unless_its_number_is_lower() {
        let last = Marker { is_replicated: true, ..marker(10) };
        let promoted = Marker { timeline: 2, ..marker(10) };
        assert_eq!(promoted.rewind_since(&last), None);
        assert!(Marker { number: 9, ..promoted }.rewind_since(&last).is_some());
    }

    #[test]
    fn another_database_has_lost_nothing() {
        let other =
            Marker { lineage: Uuid::from_u128(2), number: 0, system: Some(8), timeline: 9, ..marker(0) };
        assert_eq!(other.rewind_since(&marker(10)), None);
    }
}
