//! Reading for a page that a person waits for: with a limit of time that the server keeps.

use super::{
    error::{StatementError, action},
    sqlstate::ErrorAction,
    transaction::begin_with,
};
use futures::future::BoxFuture;
use sqlx::{Connection as _, PgConnection, PgPool};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long the pool, the network and the server may take together, beside the statements.
pub(crate) const AWAY_AFTER: Duration = Duration::from_secs(2);

/// How long a statement of a page may take.
pub(crate) const PAGE_LIMIT: Duration = Duration::from_millis(200);

/// Why something was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRead {
    /// A statement reached its limit of time, and the server ended it.
    #[error("the database did not answer within {} ms", PAGE_LIMIT.as_millis())]
    TooSlow,
    /// Other pages are read, and no more are read at a time.
    #[error("this gateway was reading other pages, two of which it reads at a time")]
    Busy,
    /// The database does not answer, or this role may not read it.
    #[error("the database is away, or this gateway may not read this")]
    Away,
    /// A defect. The log has its cause.
    #[error("there is a defect, and the gateway's log has its cause")]
    Failed,
}

/// Reads in one transaction, which can change nothing. The server ends each statement after `limit`.
pub(crate) async fn read_within<T: Send>(
    pool: &PgPool,
    limit: Duration,
    read: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send,
) -> Result<T, NotRead> {
    let reading = async {
        let mut transaction = begin_with(pool, "begin read only").await?;
        limit_statements(&mut transaction, limit).await?;
        let read = read(&mut transaction).await?;
        transaction.rollback().await?;
        Ok(read)
    };
    timeout(AWAY_AFTER, reading).await.map_err(|_| NotRead::Away)?.map_err(|error| not_read(&error))
}

/// Several readings in one transaction, which have one limit of time together. If one fails, the others can still be read.
#[derive(Debug)]
pub(crate) struct SharedReading<'c> {
    connection: &'c mut PgConnection,
    ends: Instant,
}

impl<'c> SharedReading<'c> {
    /// The connection is in a transaction.
    pub(crate) fn new(connection: &'c mut PgConnection, limit: Duration) -> Self {
        Self { connection, ends: Instant::now() + limit }
    }

    pub(crate) fn time_left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// The next reading, in the time that is left.
    pub(crate) async fn read<T: Send>(
        &mut self,
        read: impl for<'t> FnOnce(&'t mut PgConnection) -> BoxFuture<'t, Result<T, sqlx::Error>> + Send,
    ) -> Result<T, NotRead> {
        let left = self.time_left();
        // For the server, 0 ms is no limit.
        if left.as_millis() == 0 {
            return Err(NotRead::TooSlow);
        }
        let reading = async {
            // A savepoint: whatever becomes of it ends with the transaction.
            let mut savepoint = self.connection.begin().await?;
            limit_statements(&mut savepoint, left).await?;
            let read = read(&mut savepoint).await?;
            savepoint.commit().await?;
            Ok(read)
        };
        reading.await.map_err(|error| not_read(&error))
    }
}

/// Lets the server end each further statement of the transaction after `limit`.
async fn limit_statements(connection: &mut PgConnection, limit: Duration) -> Result<(), sqlx::Error> {
    let limit = format!("{}ms", limit.as_millis());
    let statement = sqlx::query("select set_config('statement_timeout', $1, true)").bind(limit);
    statement.execute(connection).await?;
    Ok(())
}

fn not_read(error: &sqlx::Error) -> NotRead {
    if error.is_canceled() {
        return NotRead::TooSlow;
    }
    if action(error) != ErrorAction::Refuse {
        return NotRead::Away;
    }
    tracing::error!(error = %error.summary(), "a statement of the console failed");
    NotRead::Failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::with_database;

    #[tokio::test]
    async fn a_slow_statement_is_ended_and_its_connection_serves_the_next_one() {
        with_database(|pool| async move {
            let limit = Duration::from_millis(500);
            let sleep = |seconds: f64| {
                read_within(&pool, limit, move |connection| {
                    Box::pin(
                        sqlx::query_scalar::<_, i32>("select 1 from pg_sleep($1)")
                            .bind(seconds)
                            .fetch_one(connection),
                    )
                })
            };
            assert_eq!(sleep(5.0).await, Err(NotRead::TooSlow));
            assert_eq!(sleep(0.0).await, Ok(1));
            let limit: String = sqlx::query_scalar("show statement_timeout").fetch_one(&pool).await.unwrap();
            assert_ne!(limit, "500ms");
        })
        .await;
    }

    #[tokio::test]
    async fn readings_of_one_limit_share_its_time_and_fail_each_by_itself() {
        with_database(|pool| async move {
            let read = read_within(&pool, Duration::from_millis(600), |connection| {
                Box::pin(async move {
                    let mut shared = SharedReading::new(connection, Duration::from_millis(600));
                    let mut read = Vec::new();
                    for statement in
                        ["select 1", "select 1 / 0", "select 2", "select 3 from pg_sleep(5)", "select 4"]
                    {
                        let reading = shared.read(move |connection| {
                            Box::pin(sqlx::query_scalar::<_, i32>(statement).fetch_one(connection))
                        });
                        read.push(reading.await);
                    }
                    Ok(read)
                })
            });
            let slow = Err(NotRead::TooSlow);
            assert_eq!(read.await, Ok(vec![Ok(1), Err(NotRead::Failed), Ok(2), slow, slow]));
        })
        .await;
    }

    #[tokio::test]
    async fn what_reads_cannot_write() {
        with_database(|pool| async move {
            let write = read_within(&pool, Duration::from_secs(1), |connection| {
                Box::pin(async move {
                    sqlx::query("create table written (n int)").execute(connection).await?;
                    Ok(())
                })
            });
            assert!(write.await.is_err());
            let there: bool = sqlx::query_scalar("select to_regclass('written') is not null")
                .fetch_one(&pool)
                .await
                .unwrap();
            assert!(!there);
        })
        .await;
    }
}
