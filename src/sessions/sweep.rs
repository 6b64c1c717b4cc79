//! Moves sessions on when their time is over: unjoined ones expire, joined ones end, rested keys are released.

use crate::db::{self, Remedy};
use sqlx::PgPool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Rows moved in one statement: few enough that no invite waits for it.
const BATCH: i64 = 500;
/// How often a worker looks; several workers look at different rows (`skip locked`).
const EVERY: Duration = Duration::from_secs(1);

/// Sweeps until `stop`. While the database is away it just looks again later: others report that.
pub async fn sweep(pool: PgPool, stop: CancellationToken) {
    loop {
        let pause = match step(&pool).await {
            // A full batch: there is more, but the invites go first.
            Ok(moved) if moved == BATCH => Duration::from_millis(20),
            Ok(_) => EVERY.mul_f64(rand::random_range(0.8..1.2)),
            Err(error) => {
                if db::remedy(&error) == Remedy::GiveUp {
                    tracing::error!(%error, "the sweep of sessions failed");
                }
                EVERY * 5
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Moves one batch on, by the index on `due_at`; answers how many rows it moved.
async fn step(pool: &PgPool) -> Result<i64, sqlx::Error> {
    let moved = sqlx::query!(
        r#"
        with due as (
            select id, group_id from sessions where key_held and due_at <= now() order by due_at limit $1 for update skip locked
        )
        update sessions s
           set status = case
                   when s.status in ('expired', 'ended') then s.status
                   when s.status = 'sending' and s.lease_until < now() then 'unknown'
                   when s.status = 'sending' then 'sending'
                   when s.status = 'joined' then 'ended'
                   else 'expired' end,
               -- Nobody waits for this text any more: whether it went out stays unknown.
               error_code = case when s.status = 'sending' and s.lease_until < now() then 'outcome_unknown' else s.error_code end,
               error = case when s.status = 'sending' and s.lease_until < now() then $2 else s.error end,
               ended_at = case when s.status in ('expired', 'ended', 'sending') then s.ended_at else now() end,
               key_held = s.status not in ('expired', 'ended'),
               due_at = case
                   when s.status in ('expired', 'ended') then null
                   when s.status = 'sending' then greatest(s.lease_until, now() + interval '1 second')
                   else now() + make_interval(secs => coalesce(g.key_rest, 86400)) end,
               updated_at = now()
          from due left join groups g on g.id = due.group_id
         where s.id = due.id
        "#,
        BATCH,
        sqlx::types::Json(super::unknown()) as sqlx::types::Json<crate::refusal::Refusal>,
    )
    .execute(pool)
    .await?;
    Ok(i64::try_from(moved.rows_affected()).unwrap_or(BATCH))
}
