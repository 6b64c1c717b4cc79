//! Which run of which server a connection leads to.

use crate::db;
use sqlx::{AssertSqlSafe, PgConnection};

/// One run of a server, from its start to its end, on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct ServerRun {
    /// [`db::TIMELINE`]; 0 on a standby.
    pub(super) timeline: i32,
    /// Microseconds since 1970.
    started: i64,
}

impl ServerRun {
    /// Of a server that takes writes.
    pub(crate) fn takes_writes(self) -> bool {
        self.timeline > 0
    }
}

/// The columns of [`ServerRun`], in a query's select list.
pub(super) fn columns() -> String {
    format!(
        "case when pg_is_in_recovery() then 0 else {} end as timeline,
         (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint as started",
        db::TIMELINE
    )
}

#[derive(sqlx::FromRow)]
struct ServerAndMarker {
    #[sqlx(flatten)]
    server: ServerRun,
    number: i64,
}

/// The server that a connection leads to, and its marker's number.
pub(super) async fn read_with_marker(connection: &mut PgConnection) -> Result<(ServerRun, i64), sqlx::Error> {
    let query = format!("select {}, m.number from database_marker m", columns());
    let row: ServerAndMarker = sqlx::query_as(AssertSqlSafe(query)).fetch_one(connection).await?;
    Ok((row.server, row.number))
}
