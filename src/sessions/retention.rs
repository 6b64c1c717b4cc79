//! Forgets old sessions: first what names a person, later the row (docs/GROWTH.md). And the repeats of STOPs that no longer
//! come.

use super::{
    Fingerprints,
    metrics::{self, Retirement},
};
use crate::{
    db::{self, Passing, kinds},
    optouts,
    supervise::{Pulse, Task, keep_up},
};
use sqlx::{PgConnection, PgPool};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// When what names a person is taken out of a row, if the row is still there: half a year.
const BLANK_AFTER: Duration = Duration::from_hours(182 * 24);
/// Rows in one statement: few enough that no invite waits for it.
const BATCH: u64 = 500;
/// How often a worker looks for what has become old.
const EVERY: Duration = Duration::from_hours(1);
/// After a full batch it rests so many times as long as the batch took, and at least for [`LEAST_REST`].
const RESTS: u32 = 3;
const LEAST_REST: Duration = Duration::from_millis(20);
/// After an error.
const LATER: Duration = Duration::from_secs(30);

/// Blanks and deletes until `stop`, at its own pace. Several workers take different rows (`skip locked`).
pub fn retain(pool: PgPool, retention: Duration, fingerprints: Fingerprints, stop: CancellationToken) {
    keep_up(Task::Retention, stop.clone(), move |pulse| {
        go_on(pool.clone(), retention, fingerprints.clone(), stop.clone(), pulse)
    });
}

async fn go_on(
    pool: PgPool,
    retention: Duration,
    fingerprints: Fingerprints,
    stop: CancellationToken,
    pulse: Pulse,
) {
    let mut told = false;
    loop {
        pulse.step("deleting and blanking old sessions");
        let begun = Instant::now();
        let stepping = db::answered(Box::pin(step(&pool, retention, &fingerprints)));
        let Some(done) = stop.run_until_cancelled(stepping).await else { return };
        kinds::RETAIN.note(&done);
        let pause = match done {
            // There is more, but the invites go first.
            Ok(true) => (begun.elapsed() * RESTS).max(LEAST_REST),
            Ok(false) => EVERY.mul_f64(rand::random_range(0.8..1.2)),
            Err(error) => {
                if !told {
                    tracing::warn!(error = %error.summary(), "old sessions cannot be deleted or blanked; trying again");
                }
                LATER
            }
        };
        told = pause == LATER;
        pulse.idle();
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// One batch of each; answers whether there may be more.
async fn step(pool: &PgPool, retention: Duration, fingerprints: &Fingerprints) -> Result<bool, sqlx::Error> {
    let mut transaction = db::begin(pool).await?;
    // It waits for nobody: a migration that needs the table has it first.
    sqlx::raw_sql("set local lock_timeout = '1s'; set local statement_timeout = '10s'")
        .execute(&mut *transaction)
        .await?;
    let mut deleted = delete(&mut transaction, retention, true).await?;
    if deleted < BATCH {
        deleted += delete(&mut transaction, retention, false).await?;
    }
    // What is kept for no longer than names needs no blanking.
    let blanked =
        if retention > BLANK_AFTER { blank(&mut transaction, retention, fingerprints).await? } else { 0 };
    let repeats = optouts::forget_repeats(&mut transaction, BATCH.cast_signed()).await?;
    transaction.commit().await?;
    metrics::retired(Retirement::Deleted, deleted);
    metrics::retired(Retirement::Blanked, blanked);
    Ok(deleted >= BATCH || blanked >= BATCH || repeats >= BATCH)
}

/// Deletes rows that are older than `age` and over: no key is held, and no invite is in hand.
async fn delete(connection: &mut PgConnection, age: Duration, blanked: bool) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        r#"
        with old as materialized (
            select id from sessions
             where not key_held and blanked = $3 and created_at < now() - make_interval(secs => $2) and status <> 'sending'
               -- A message that is about to come again may still ask for what was decided a moment ago.
               and updated_at < now() - interval '1 day'
             order by created_at limit $1 for update skip locked
        )
        delete from sessions s using old where s.id = any(array[old.id])
        "#,
        BATCH.cast_signed(),
        age.as_secs_f64(),
        blanked,
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// Takes out what names a person, of rows that are not to be deleted now. What is left says that there was an invite, and what became of it.
///
/// The message id stays: it answers for its invite as long as the row is there, and `content_hash` says for which content.
/// So does the request's hash, which nobody can guess the request from, as that holds a signature.
async fn blank(
    connection: &mut PgConnection,
    retention: Duration,
    fingerprints: &Fingerprints,
) -> Result<u64, sqlx::Error> {
    let old = sqlx::query!(
        r#"
        select id, session_type, phone, session_params::text as "params!" from sessions
         where not key_held and not blanked and status <> 'sending'
           and created_at < now() - make_interval(secs => $2) and created_at >= now() - make_interval(secs => $3)
         order by created_at limit $1 for update skip locked
        "#,
        BATCH.cast_signed(),
        BLANK_AFTER.as_secs_f64(),
        retention.as_secs_f64(),
    )
    .fetch_all(&mut *connection)
    .await?;
    if old.is_empty() {
        return Ok(0);
    }
    let (ids, hashes): (Vec<_>, Vec<_>) = old
        .iter()
        .map(|row| (row.id, fingerprints.of(row.session_type, row.phone.as_deref(), &row.params)))
        .unzip();
    let blanked = sqlx::query!(
        r#"
        update sessions s
           set blanked = true, content_hash = o.hash, phone = null, invitation_text = null, session_params = '{}', token = null,
               correlation_id = null, requested_by = split_part(s.requested_by, ':', 1), updated_at = now()
          from unnest($1::uuid[], $2::bytea[]) as o (id, hash)
         where s.id = any(array[o.id])
        "#,
        &ids,
        &hashes.iter().map(<[u8; 32]>::as_slice).collect::<Vec<_>>() as &[&[u8]],
    )
    .execute(connection)
    .await?;
    Ok(blanked.rows_affected())
}
