//! What `/metrics` shows of the tables: read now and then by one task, never for a scrape, and within a limit of time.

use super::metrics;
use crate::{
    db::{self, kinds},
    group::directory::Snapshot,
    group_id::GroupId,
};
use sqlx::{PgExecutor, PgPool, Postgres, Transaction};

/// Events that are counted at most.
const EVENTS_AT_MOST: i64 = 10_000;
/// The newest rows, by which the busiest groups are known.
const NEWEST_ROWS: i64 = 10_000;

/// How many events wait to be published.
#[derive(Debug, Clone)]
pub(crate) struct OutboxDepth {
    /// [`EVENTS_AT_MOST`] stands for more.
    pub(crate) events: i64,
    /// The age of the first, in seconds.
    pub(crate) oldest: f64,
}

/// Reads how many events wait.
pub(crate) async fn outbox_depth(db: impl PgExecutor<'_>) -> Result<OutboxDepth, sqlx::Error> {
    sqlx::query_as!(
        OutboxDepth,
        r#"select (select count(*) from (select from events order by id limit $1) first) as "events!",
                  coalesce((select extract(epoch from now() - e.at) from events e order by e.id limit 1), 0)::float8 as "oldest!""#,
        EVENTS_AT_MOST,
    )
    .fetch_one(db)
    .await
}

/// Measures the outbox.
pub(crate) async fn measure_outbox(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut transaction = begin(pool).await?;
    let outbox = outbox_depth(&mut *transaction).await?;
    transaction.commit().await?;
    kinds::MEASURE.note_answer();
    metrics::outbox_measured(outbox.events, outbox.oldest.max(0.0));
    Ok(())
}

/// Measures how many keys each group holds. It reads one index, with an entry for each held key.
pub(crate) async fn measure_keys(pool: &PgPool, groups: &Snapshot) -> Result<(), sqlx::Error> {
    let mut transaction = begin(pool).await?;
    let held = sqlx::query!(
        r#"select group_id as "group: GroupId", length(session_key) as "digits!", count(*) as "keys!"
             from sessions where key_held and session_key is not null
            group by group_id, length(session_key)"#,
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    kinds::MEASURE.note_answer();
    let mut by_group: Vec<(GroupId, u32, f64)> = Vec::new();
    for row in held {
        let keys = u32::try_from(row.keys).unwrap_or(u32::MAX);
        let own_length = groups.group(row.group).map(|group| i32::from(group.options.key_length));
        // Longer keys are drawn only where those of the group's length are hard to find.
        let share =
            if own_length == Some(row.digits) { f64::from(keys) / 10_f64.powi(row.digits) } else { 0.0 };
        match by_group.iter_mut().find(|(group, ..)| *group == row.group) {
            Some((_, all, largest)) => (*all, *largest) = (all.saturating_add(keys), largest.max(share)),
            None => by_group.push((row.group, keys, share)),
        }
    }
    metrics::keys_measured(&by_group);
    Ok(())
}

/// The groups with the most of the newest sessions, the busiest first.
pub(crate) async fn busiest_groups(pool: &PgPool, groups: i64) -> Result<Vec<GroupId>, sqlx::Error> {
    let mut transaction = begin(pool).await?;
    let busiest = sqlx::query_scalar!(
        r#"select group_id as "group: GroupId" from (select group_id from sessions order by id desc limit $1) newest
            group by group_id order by count(*) desc, group_id limit $2"#,
        NEWEST_ROWS,
        groups,
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(busiest)
}

/// A transaction whose statements end soon: a measurement must not hold a connection that invites need.
async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let begun = std::time::Instant::now();
    let mut transaction = db::begin(pool).await?;
    db::metrics::waited_for_connection(begun.elapsed());
    sqlx::query("set local statement_timeout = '4s'").execute(&mut *transaction).await?;
    Ok(transaction)
}
