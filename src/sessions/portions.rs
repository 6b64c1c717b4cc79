//! Searching sessions for a page that a person waits for: portion by portion, the newest first. So a search that finds little
//! shows what it has found, and where it stopped.

use super::{lookup::Filter, status::Status};
use crate::group_id::GroupId;
use sqlx::{PgExecutor, query_as};
use time::OffsetDateTime;
use uuid::Uuid;

/// Sessions that were read, and those of them that match.
#[derive(Debug)]
pub(crate) struct SessionPortion {
    /// Of those that match, the newest first.
    pub(crate) ids: Vec<Uuid>,
    /// How many were read. If they are fewer than was asked for, there are no more.
    pub(crate) read: i64,
    /// The last one that was read. The next portion is before it.
    pub(crate) last: Option<Uuid>,
    /// When that one was created.
    pub(crate) since: Option<OffsetDateTime>,
}

/// Joins the parts of the statement below, in which `$matches` occurs twice. Both indexes of numbers have all that
/// is read for a number: rows are read for those that vacuum has not seen yet, and for the result.
macro_rules! next_portion {
    ($matches:literal, $($arguments:tt)*) => {
        query_as!(
            SessionPortion,
            r#"
            with read as materialized (
                (select id, created_at, "# + $matches + r#" as matches from sessions
                  where $1::text[] is null and id between $2 and $3
                  order by id desc limit $10)
                union all
                select id, created_at, "# + $matches + r#" from sessions
                 where id = any(array(
                     -- Behind `offset 0`, as no plan may read all ids of the time for a number.
                     select n.id from (select id from sessions where token is not null and phone = any($1)
                                       union all
                                       select id from sessions where token is null and phone = any($1)
                                       offset 0) n
                      where n.id between $2 and $3 order by n.id desc limit $10))
            )
            select array(select id from read where matches order by id desc limit $11) as "ids!",
                   (select count(*) from read) as "read!",
                   (select id from read order by id limit 1) as last,
                   (select created_at from read order by id limit 1) as since
            "#,
            $($arguments)*
        )
    };
}

/// Reads the newest `most` sessions in the filter's time and before its `before`, or of its number, and returns at most
/// `wanted` of those that match. With an `id`, one of those that no index has must be it: the provider's id of the text, the
/// correlation id, or the key before its release.
pub(crate) async fn next_portion(
    db: impl PgExecutor<'_>,
    filter: &Filter,
    id: Option<&str>,
    most: i64,
    wanted: i64,
) -> Result<SessionPortion, sqlx::Error> {
    let (first, last) = filter.ids();
    next_portion!(
        "(($4::bigint is null or group_id = $4) and ($5::text is null or status = $5)
          and ($6::text is null or error_code = $6)
          and ($7::timestamptz is null or created_at >= $7) and ($8::timestamptz is null or created_at < $8)
          and ($12::text is null or message_id = $12)
          and ($9::text is null or provider_message_id = $9 or correlation_id = $9 or (session_key = $9 and not key_held)))",
        filter.phones.as_deref(),
        first,
        last,
        filter.group.map(GroupId::get),
        filter.status.map(Status::as_str),
        filter.code,
        filter.since,
        filter.until,
        id,
        most,
        wanted,
        filter.message_id,
    )
    .fetch_one(db)
    .await
}
