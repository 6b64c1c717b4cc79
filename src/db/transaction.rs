//! Beginning a transaction so that no connection stays in one by accident.
//!
//! sqlx 0.9 counts a transaction only once the server has answered `BEGIN`. A time limit or a client that disconnects may
//! drop `begin` before that. The connection then returns to the pool inside an open transaction: the next row that is
//! written on it is never committed, although its invite was texted.

use crate::supervise::spawn_work;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::oneshot;

/// Begins a transaction. It is rolled back when it is dropped, and so is one whose `begin` is dropped.
pub(crate) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    begin_with(pool, "begin").await
}

/// The same, with a statement such as `begin read only`.
pub(crate) async fn begin_with(
    pool: &PgPool,
    statement: &'static str,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let (done, begun) = oneshot::channel();
    let pool = pool.clone();
    // In a task of its own, which is never dropped half-way. If the caller is gone, the transaction is dropped, and so
    // rolled back.
    spawn_work("begin of a transaction", async move {
        #[expect(clippy::disallowed_methods, reason = "this is the place that finishes what it began")]
        let _ = done.send(pool.begin_with(statement).await);
    });
    begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::with_database;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_begin_that_is_dropped_at_any_moment_leaves_no_connection_in_a_transaction() {
        with_database(|pool| async move {
            let options = pool.connect_options().as_ref().clone();
            let one = sqlx::postgres::PgPoolOptions::new().max_connections(1).test_before_acquire(false);
            let pool = one.connect_with(options).await.unwrap();
            for polls in 1..=12 {
                while pool.num_idle() == 0 {
                    tokio::task::yield_now().await;
                }
                let mut beginning = Box::pin(begin(&pool));
                for _ in 0..polls {
                    if (&mut beginning).now_or_never().is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                drop(beginning);
                // Two statements with one id are in a transaction that was left open.
                let id =
                    || sqlx::query_scalar::<_, String>("select pg_current_xact_id()::text").fetch_one(&pool);
                let (first, second) = (id().await.unwrap(), id().await.unwrap());
                assert_ne!(first, second, "dropped after {polls} polls");
            }
            pool.close().await;
        })
        .await;
    }
}
