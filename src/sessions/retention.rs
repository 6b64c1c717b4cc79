//! Blanks old sessions, and later deletes them (docs/GROWTH.md). Also deletes the STOPs and STARTs that are too old to come
//! again.

use super::{
    content_hash::ContentHasher,
    metrics::{self, Retirement},
};
use crate::{
    db::{self, StatementError, kinds},
    optouts,
    supervise::{Pulse, Task, keep_running},
};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The age at which a row loses what names a person: half a year.
const BLANK_AFTER: Duration = Duration::from_hours(182 * 24);
/// Rows in one statement: few enough that no invite waits for it.
const BATCH: u64 = 500;
/// How often a worker looks for old rows.
const EVERY: Duration = Duration::from_hours(1);
/// After a full batch it pauses for so many times the batch's own time, and for [`LEAST_PAUSE`] at least.
const PAUSE_FACTOR: u32 = 3;
const LEAST_PAUSE: Duration = Duration::from_millis(20);
/// The pause after an error.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(30);

/// Blanks and deletes until `stop`, at its own pace. Several workers take different rows (`skip locked`).
pub(crate) fn retain(pool: PgPool, retention: Duration, hasher: ContentHasher, stop: CancellationToken) {
    keep_running(Task::Retention, stop.clone(), move |pulse| {
        run(pool.clone(), retention, hasher.clone(), stop.clone(), pulse)
    });
}

async fn run(
    pool: PgPool,
    retention: Duration,
    hasher: ContentHasher,
    stop: CancellationToken,
    pulse: Pulse,
) {
    let mut is_logged = false;
    loop {
        pulse.step("deleting and blanking old sessions");
        let begun = Instant::now();
        let stepping = db::with_time_limit(Box::pin(step(&pool, retention, &hasher)));
        let Some(done) = stop.run_until_cancelled(stepping).await else { return };
        kinds::RETAIN.note(&done);
        let pause = match done {
            // There is more to do, but invites come first.
            Ok(true) => (begun.elapsed() * PAUSE_FACTOR).max(LEAST_PAUSE),
            Ok(false) => EVERY.mul_f64(rand::random_range(0.8..1.2)),
            Err(error) => {
                if !is_logged {
                    tracing::warn!(error = %error.summary(), "old sessions cannot be deleted or blanked; trying again");
                }
                PAUSE_AFTER_ERROR
            }
        };
        is_logged = pause == PAUSE_AFTER_ERROR;
        pulse.idle();
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// Takes one batch of each kind; answers whether there may be more.
async fn step(pool: &PgPool, retention: Duration, hasher: &ContentHasher) -> Result<bool, sqlx::Error> {
    let mut transaction = db::begin(pool).await?;
    // It gives way: a migration that waits for the table comes first.
    sqlx::raw_sql("set local lock_timeout = '1s'; set local statement_timeout = '10s'")
        .execute(&mut *transaction)
        .await?;
    let mut deleted = delete(&mut transaction, retention, OldRows::Blanked).await?;
    if deleted < BATCH {
        deleted += delete(&mut transaction, retention, OldRows::Whole).await?;
    }
    let blanked =
        if is_blanked_before(retention) { blank(&mut transaction, retention, hasher).await? } else { 0 };
    let repeats = optouts::forget_repeats(&mut transaction, BATCH.cast_signed()).await?;
    transaction.commit().await?;
    metrics::retired(Retirement::Deleted, deleted);
    metrics::retired(Retirement::Blanked, blanked);
    Ok(deleted >= BATCH || blanked >= BATCH || repeats >= BATCH)
}

/// Which old rows a statement takes. The index `sessions_over` keeps them apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OldRows {
    Blanked,
    Whole,
}

/// A checked statement on the rows that are older than `$age` and whose session is over: no key is held, and the invite has
/// its outcome. It is `$before`, the condition for them, and `$after`; its own parameters begin with `$3`.
macro_rules! on_deletable {
    ($query:ident, $age:expr, $rows:expr, $before:literal, $after:literal $(, $more:expr)* $(,)?) => {
        sqlx::$query!(
            $before + r#"
                   not key_held and blanked = $2 and created_at < now() - make_interval(secs => $1) and status <> 'sending'
               -- A message that is redelivered soon may still need an outcome that is new.
               and updated_at < now() - interval '1 day'
            "# + $after,
            $age.as_secs_f64(),
            $rows == OldRows::Blanked,
            $($more,)*
        )
    };
}

/// The same on the rows that are old enough to be blanked, and not to be deleted.
macro_rules! on_blankable {
    ($query:ident, $retention:expr, $before:literal, $after:literal $(, $more:expr)* $(,)?) => {
        sqlx::$query!(
            $before + r#"
               not key_held and not blanked and status <> 'sending'
               and created_at < now() - make_interval(secs => $1) and created_at >= now() - make_interval(secs => $2)
            "# + $after,
            BLANK_AFTER.as_secs_f64(),
            $retention.as_secs_f64(),
            $($more,)*
        )
    };
}

/// What retention has to do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RetentionCounts {
    /// Sessions to delete, blanked ones among them.
    pub(crate) deleted: i64,
    /// Sessions to blank.
    pub(crate) blanked: i64,
    /// STOPs and STARTs that are too old to come again.
    pub(crate) inbound_texts: i64,
}

/// Counts what retention has to do now. It changes nothing.
pub(crate) async fn count(pool: &PgPool, retention: Duration) -> Result<RetentionCounts, sqlx::Error> {
    let mut deleted = 0;
    for rows in [OldRows::Blanked, OldRows::Whole] {
        let counting = on_deletable!(
            query_scalar,
            retention,
            rows,
            r#"select count(*) as "count!" from sessions where "#,
            ""
        );
        deleted += counting.fetch_one(pool).await?;
    }
    let counting =
        on_blankable!(query_scalar, retention, r#"select count(*) as "count!" from sessions where "#, "");
    let blanked = if is_blanked_before(retention) { counting.fetch_one(pool).await? } else { 0 };
    Ok(RetentionCounts { deleted, blanked, inbound_texts: optouts::count_old_repeats(pool).await? })
}

/// With a shorter retention, rows are deleted before they would be blanked.
fn is_blanked_before(retention: Duration) -> bool {
    retention > BLANK_AFTER
}

async fn delete(connection: &mut PgConnection, age: Duration, rows: OldRows) -> Result<u64, sqlx::Error> {
    let deleting = on_deletable!(
        query,
        age,
        rows,
        "with old as materialized (
            select id from sessions where ",
        "order by created_at limit $3 for update skip locked
        ),
        without_steps as (
            delete from steps k using old where k.session_id = any(array[old.id])
        )
        delete from sessions s using old where s.id = any(array[old.id])",
        BATCH.cast_signed(),
    );
    Ok(deleting.execute(connection).await?.rows_affected())
}

/// Removes what names a person from rows that are not to be deleted yet. The rest shows that there was an invite, and its
/// outcome.
///
/// The message id stays: the row answers for it as long as it exists, and `content_hash` identifies the content. The
/// request's hash stays too: the request holds a signature, so it cannot be guessed from its hash.
async fn blank(
    connection: &mut PgConnection,
    retention: Duration,
    hasher: &ContentHasher,
) -> Result<u64, sqlx::Error> {
    let reading = on_blankable!(
        query,
        retention,
        r#"select id, session_type, phone, session_params::text as "params!" from sessions where "#,
        "order by created_at limit $3 for update skip locked",
        BATCH.cast_signed(),
    );
    let old = reading.fetch_all(&mut *connection).await?;
    if old.is_empty() {
        return Ok(0);
    }
    let (ids, hashes): (Vec<_>, Vec<_>) = old
        .iter()
        .map(|row| (row.id, hasher.hash(row.session_type, row.phone.as_deref(), &row.params)))
        .unzip();
    blank_rows(connection, &ids, &hashes).await
}

/// Blanks these rows; each keeps the hash of its content.
pub(super) async fn blank_rows(
    connection: &mut PgConnection,
    ids: &[Uuid],
    hashes: &[[u8; 32]],
) -> Result<u64, sqlx::Error> {
    let blanked = sqlx::query!(
        r#"
        update sessions s
           set blanked = true, content_hash = o.hash, phone = null, invitation_text = null, session_params = '{}', token = null,
               correlation_id = null, reply_to = null, traceparent = null,
               requested_by = split_part(s.requested_by, ':', 1), updated_at = now()
          from unnest($1::uuid[], $2::bytea[]) as o (id, hash)
         where s.id = any(array[o.id])
        "#,
        ids,
        &hashes.iter().map(<[u8; 32]>::as_slice).collect::<Vec<_>>() as &[&[u8]],
    )
    .execute(connection)
    .await?;
    Ok(blanked.rows_affected())
}
