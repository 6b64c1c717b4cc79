//! What becomes of the newest invites, for the console: found by their ids, and never more than [`ROWS`] of them.

use super::{
    lookup::{ID_IS_WITHIN, first_id},
    status::Status,
};
use crate::group_id::GroupId;
use sqlx::PgExecutor;
use std::time::Duration;
use strum::VariantNames;
use time::OffsetDateTime;
use uuid::Uuid;

/// Rows that are read at most.
pub(crate) const ROWS: i64 = 30_000;
/// Invites that began in this time are counted.
const SPAN: Duration = Duration::from_hours(1);
/// Rows of a result at most, where each group may have several.
const RESULTS: i64 = 30;

/// Invites that began in one minute and have one status now.
#[derive(Debug, Clone)]
pub(crate) struct MinuteCount {
    /// 0 for the minute until now, 59 at most.
    pub(crate) minutes_ago: i32,
    pub(crate) status: Status,
    pub(crate) count: i64,
    /// When the first of them began.
    pub(crate) since: OffsetDateTime,
}

/// Invites of a group that have one status and one code now.
#[derive(Debug, Clone)]
pub(crate) struct OutcomeCount {
    pub(crate) group: GroupId,
    pub(crate) status: Status,
    pub(crate) code: Option<String>,
    pub(crate) count: i64,
    /// When the last of them began.
    pub(crate) newest: OffsetDateTime,
}

/// The lowest id that an invite of the last hour can have.
fn first() -> Uuid {
    first_id(OffsetDateTime::now_utc() - SPAN - ID_IS_WITHIN)
}

/// What became of the newest [`ROWS`] invites of the last hour.
#[derive(Debug)]
pub(crate) struct LastHour {
    /// Minute by minute, the newest first.
    pub(crate) minutes: Vec<MinuteCount>,
    /// Those that brought no text, whose text is uncertain or did not arrive, or that have waited for half a minute, by group
    /// and code; the most frequent first.
    pub(crate) in_trouble: Vec<OutcomeCount>,
}

/// Reads the rows once for both, as the overview reads them every few seconds.
pub(crate) async fn last_hour(db: impl PgExecutor<'_>) -> Result<LastHour, sqlx::Error> {
    // Each minute may have each status.
    let most = i64::try_from(60 * Status::VARIANTS.len()).unwrap_or_default() + RESULTS;
    let rows = sqlx::query!(
        r#"select minutes_ago as "minutes_ago?", group_id as "group?: GroupId", status as "status!: Status",
                  error_code as "code?", count(*) as "count!", min(created_at) as "since!", max(created_at) as "newest!"
             from (select group_id, status, error_code, created_at,
                          greatest(floor(extract(epoch from now() - created_at) / 60), 0)::int4 as minutes_ago,
                          status in ('failed', 'rejected', 'unknown', 'undelivered')
                          or (status = 'sending' and created_at < now() - interval '30 seconds') as in_trouble
                     from (select group_id, status, error_code, created_at from sessions where id >= $1
                            order by id desc limit $2) newest
                    where created_at > now() - interval '1 hour') recent
            group by grouping sets ((minutes_ago, status), (group_id, status, error_code, in_trouble))
           having grouping(minutes_ago) = 0 or in_trouble
            order by minutes_ago nulls last, count(*) desc, group_id, status, error_code limit $3"#,
        first(),
        ROWS,
        most,
    )
    .fetch_all(db)
    .await?;
    let (mut minutes, mut in_trouble) = (Vec::new(), Vec::new());
    for row in rows {
        let (status, count) = (row.status, row.count);
        if let Some(minutes_ago) = row.minutes_ago {
            minutes.push(MinuteCount { minutes_ago, status, count, since: row.since });
        } else if let Some(group) = row.group {
            in_trouble.push(OutcomeCount { group, status, code: row.code, count, newest: row.newest });
        }
    }
    in_trouble.truncate(usize::try_from(RESULTS).unwrap_or(usize::MAX));
    Ok(LastHour { minutes, in_trouble })
}

/// The outcomes of one group's invites of the last hour, the most frequent first.
pub(crate) async fn of_group(
    db: impl PgExecutor<'_>,
    group: GroupId,
) -> Result<Vec<OutcomeCount>, sqlx::Error> {
    sqlx::query_as!(
        OutcomeCount,
        r#"select group_id as "group: GroupId", status as "status: Status", error_code as code, count(*) as "count!",
                  max(created_at) as "newest!"
             from (select group_id, status, error_code, created_at from sessions where id >= $1
                    order by id desc limit $2) newest
            where created_at > now() - interval '1 hour' and group_id = $4
            group by 1, 2, 3 order by 4 desc, 2, 3 limit $3"#,
        first(),
        ROWS,
        RESULTS,
        group.get(),
    )
    .fetch_all(db)
    .await
}

/// How many invites of the last hour each of these groups has. One without any is left out.
pub(crate) async fn by_group(
    db: impl PgExecutor<'_>,
    groups: &[i64],
) -> Result<Vec<(GroupId, i64)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select group_id as "group: GroupId", count(*) as "count!"
             from (select group_id, created_at from sessions where id >= $1 order by id desc limit $2) newest
            where created_at > now() - interval '1 hour' and group_id = any($3)
            group by 1"#,
        first(),
        ROWS,
        groups,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.group, row.count)).collect())
}
