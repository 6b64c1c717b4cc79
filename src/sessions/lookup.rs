//! Reading sessions, for operators and their commands.

use super::status::{Status, TextState};
use crate::{group_id::GroupId, masked::debug_shows};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool, query_as};
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// An id holds the time when its worker made it. It differs from `created_at` by the workers' clocks, and by the time that the
/// row waited for its statement. A row is found by its age if the two differ by less than this.
pub(crate) const ID_IS_WITHIN: Duration = Duration::from_hours(1);

/// A session as an operator sees it.
#[derive(Serialize)]
pub(crate) struct SessionDetails {
    pub(crate) id: Uuid,
    pub(crate) group_id: i64,
    pub(crate) session_key: Option<String>,
    pub(crate) status: Status,
    pub(crate) session_type: Option<i32>,
    pub(crate) session_params: serde_json::Value,
    pub(crate) phone: Option<String>,
    pub(crate) invitation_text: Option<String>,
    pub(crate) requested_by: String,
    pub(crate) message_id: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) attempts: i32,
    /// What is known of the text (docs/DELIVERY.md).
    pub(crate) text_state: Option<TextState>,
    pub(crate) looks: i32,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) lease_until: Option<OffsetDateTime>,
    pub(crate) provider_message_id: Option<String>,
    pub(crate) error_code: Option<String>,
    pub(crate) error: Option<serde_json::Value>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) sent_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) delivered_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) undelivered_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) joined_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) ended_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) updated_at: OffsetDateTime,
}

debug_shows!(SessionDetails { id, group_id, status });

/// Which sessions to read; `None` for any.
#[derive(Clone, Default)]
pub(crate) struct Filter {
    pub(crate) group: Option<GroupId>,
    pub(crate) status: Option<Status>,
    pub(crate) message_id: Option<String>,
    /// A number in E.164, with its other form if it has one.
    pub(crate) phones: Option<Vec<String>>,
    pub(crate) code: Option<String>,
    pub(crate) since: Option<OffsetDateTime>,
    pub(crate) until: Option<OffsetDateTime>,
    /// Only sessions with lower ids: those that come after this one in the list.
    pub(crate) before: Option<Uuid>,
}

debug_shows!(Filter { group, status, code, since, until, before });

impl Filter {
    /// Ids between which all sessions are that were created in the filter's time, and before `before`.
    pub(super) fn ids(&self) -> (Uuid, Uuid) {
        let first = self.since.map_or(Uuid::nil(), |since| first_id(since - ID_IS_WITHIN));
        let last = self.until.map_or(Uuid::max(), |until| first_id(until + ID_IS_WITHIN));
        let before = self.before.map(|id| Uuid::from_u128(id.as_u128().saturating_sub(1)));
        (first, before.map_or(last, |before| last.min(before)))
    }
}

/// The lowest id of those that are made at this time. The first 48 bits of a UUID version 7 (RFC 9562, section 5.7) are
/// milliseconds.
pub(crate) fn first_id(at: OffsetDateTime) -> Uuid {
    let milliseconds = (at.unix_timestamp_nanos() / 1_000_000).clamp(0, (1 << 48) - 1);
    Uuid::from_u128(milliseconds.unsigned_abs() << 80)
}

/// A checked statement that reads [`SessionDetails`].
macro_rules! details {
    ($rest:literal $(+ $more:literal)*, $($arguments:tt)*) => {
        query_as!(
            SessionDetails,
            r#"select id, group_id, session_key, status as "status: Status", session_type, session_params, phone, invitation_text,
                      requested_by, message_id, correlation_id, attempts, text_state as "text_state: TextState", looks,
                      lease_until, provider_message_id, error_code, error, created_at, sent_at, delivered_at, undelivered_at,
                      joined_at, ended_at, expires_at, updated_at
                 from sessions "# + $rest $(+ $more)*,
            $($arguments)*
        )
    };
}

/// A checked statement on the newest sessions that a [`Filter`] matches, at most `$limit` of them. It is `$before`, their rows
/// as `m`, and `$after`; its own parameters begin with `$11`. A number's sessions are found by its two indexes. All others are
/// read in the order of their ids, which is that of time, until there are enough.
macro_rules! on_matching {
    ($query:ident, [$($type:ty)?], $filter:expr, $limit:expr, $before:literal, $after:literal $(, $more:expr)* $(,)?) => {
        on_matching!(
            @with $query, [$($type)?], $filter, $limit, $before, $after,
            "and ($4::bigint is null or group_id = $4) and ($5::text is null or status = $5)
             and ($6::text is null or message_id = $6) and ($7::text is null or error_code = $7)
             and ($8::timestamptz is null or created_at >= $8) and ($9::timestamptz is null or created_at < $9)"
            $(, $more)*
        )
    };
    (@with $query:ident, [$($type:ty)?], $filter:expr, $limit:expr, $before:literal, $after:literal, $matches:literal
     $(, $more:expr)*) => {{
        let (first, last) = $filter.ids();
        $query!(
            $($type,)?
            $before + "(
                (select id, group_id, status, error_code from sessions
                  where $1::text[] is null and id between $2 and $3 " + $matches + "
                  order by id desc limit $10)
                union all
                select id, group_id, status, error_code from sessions
                 where phone = any($1) and token is not null and id between $2 and $3 " + $matches + "
                union all
                select id, group_id, status, error_code from sessions
                 where phone = any($1) and token is null and id between $2 and $3 " + $matches + "
            ) m " + $after,
            $filter.phones.as_deref(),
            first,
            last,
            $filter.group.map(GroupId::get),
            $filter.status.map(Status::as_str),
            $filter.message_id,
            $filter.code,
            $filter.since,
            $filter.until,
            $limit as Option<i64>,
            $($more,)*
        )
    }};
}

/// The newest sessions first, at most `limit`.
pub(crate) async fn list(
    executor: impl PgExecutor<'_>,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<SessionDetails>, sqlx::Error> {
    on_matching!(
        details,
        [],
        filter,
        Some(limit),
        "where id = any(array(select m.id from ",
        "order by m.id desc limit $10)) order by id desc",
    )
    .fetch_all(executor)
    .await
}

/// By what sessions are counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CountedBy {
    pub(crate) group: bool,
    pub(crate) status: bool,
    pub(crate) code: bool,
}

/// How many sessions have these values. What they are not counted by is `None`, and so is a code that a session does not have.
#[derive(Debug, Default)]
pub(crate) struct SessionCount {
    pub(crate) group: Option<i64>,
    pub(crate) status: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) count: i64,
}

/// The most frequent values first.
pub(crate) async fn count(
    pool: &PgPool,
    filter: &Filter,
    by: CountedBy,
) -> Result<Vec<SessionCount>, sqlx::Error> {
    on_matching!(
        query_as,
        [SessionCount],
        filter,
        None,
        r#"select case when $11 then m.group_id end as "group", case when $12 then m.status end as status,
                  case when $13 then m.error_code end as code, count(*) as "count!"
             from "#,
        "group by 1, 2, 3 order by 4 desc, 1, 2, 3",
        by.group,
        by.status,
        by.code,
    )
    .fetch_all(pool)
    .await
}

/// The database's time, which is that of `created_at`.
pub(crate) async fn now(executor: impl PgExecutor<'_>) -> Result<OffsetDateTime, sqlx::Error> {
    sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(executor).await
}

pub(crate) async fn show(
    executor: impl PgExecutor<'_>,
    id: Uuid,
) -> Result<Option<SessionDetails>, sqlx::Error> {
    details!("where id = $1", id).fetch_optional(executor).await
}

/// Those of these sessions that there are, the newest first.
pub(crate) async fn with_ids(
    executor: impl PgExecutor<'_>,
    ids: &[Uuid],
) -> Result<Vec<SessionDetails>, sqlx::Error> {
    details!("where id = any($1) order by id desc", ids).fetch_all(executor).await
}

/// The live session that holds this key in its group.
pub(crate) async fn by_key(
    pool: &PgPool,
    group: GroupId,
    key: &str,
) -> Result<Option<SessionDetails>, sqlx::Error> {
    details!(
        "where id = (select id from live_sessions where group_id = $1 and session_key = $2)",
        group.get(),
        key
    )
    .fetch_optional(pool)
    .await
}

/// How a retry copy names its session, without the request's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) session: Uuid,
    /// Proves that a worker wrote the copy.
    pub(crate) ticket: Uuid,
}

/// The row of exactly this request, which shows that its sender was authenticated. It is the row that answers for the group
/// and message id. For a request without a message id it is one of the last day whose acknowledgement is not sure.
pub(crate) async fn authenticated(
    db: impl PgExecutor<'_>,
    group: Option<GroupId>,
    message_id: Option<&str>,
    request_sha256: &[u8; 32],
) -> Result<Option<Ticket>, sqlx::Error> {
    let Some(message_id) = message_id else {
        return sqlx::query_as!(
            Ticket,
            r#"select id as session, ticket as "ticket!" from sessions
                where request_sha256 = $1 and not acknowledged and created_at > now() - interval '1 day'
                order by id desc limit 1"#,
            request_sha256.as_slice()
        )
        .fetch_optional(db)
        .await;
    };
    let Some(group) = group else { return Ok(None) };
    sqlx::query_as!(
        Ticket,
        r#"select id as session, ticket as "ticket!" from sessions
            where group_id = $1 and message_id = $2 and owns_message_id and request_sha256 = $3 and ticket is not null"#,
        group.get(),
        message_id,
        request_sha256.as_slice()
    )
    .fetch_optional(db)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_a_time_include_those_of_clocks_that_differ() {
        let id = |at: OffsetDateTime| {
            let seconds = at.unix_timestamp().unsigned_abs();
            Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, at.nanosecond()))
        };
        let now = OffsetDateTime::now_utc();
        let minutes = Duration::from_mins;
        let (first, last) = Filter { since: Some(now), until: Some(now), ..Filter::default() }.ids();
        assert!((first..last).contains(&id(now)));
        assert!(
            (first..last).contains(&id(now - minutes(59))) && (first..last).contains(&id(now + minutes(59)))
        );
        assert!(id(now - minutes(61)) < first && id(now + minutes(61)) > last);
        assert_eq!(Filter::default().ids(), (Uuid::nil(), Uuid::max()));
        let last = id(now);
        let (_, before) = Filter { before: Some(last), ..Filter::default() }.ids();
        assert_eq!(before.as_u128() + 1, last.as_u128());
    }
}
