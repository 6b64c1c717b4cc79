//! Finding a session by whatever id an operator has, and what else its story is shown from (`session-invite trace`).

use super::lookup::{ID_IS_WITHIN, first_id};
use crate::{group_id::GroupId, masked::debug_shows};
use sqlx::PgExecutor;
use strum::{EnumString, IntoStaticStr};
use time::OffsetDateTime;
use uuid::Uuid;

/// Events of the outbox that are looked at for one session.
pub(crate) const EVENTS_LOOKED_AT: i64 = 20_000;

/// As what an id is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[strum(serialize_all = "snake_case")]
pub(crate) enum FoundBy {
    SessionId,
    MessageId,
    Key,
    Phone,
    ProviderId,
    CorrelationId,
    /// The session had the key once, and has released it.
    FormerKey,
}

/// A session with the id. `by` is a [`FoundBy`].
#[derive(Debug)]
pub(crate) struct FoundSession {
    pub(crate) id: Uuid,
    pub(crate) by: String,
}

/// What to look for.
pub(crate) struct Wanted {
    pub(crate) id: String,
    /// The id as a number in E.164, with its other form if it has one.
    pub(crate) phones: Vec<String>,
    pub(crate) group: Option<GroupId>,
    /// The search without an index ends here.
    pub(crate) since: OffsetDateTime,
    /// How many sessions at most.
    pub(crate) limit: i64,
}

debug_shows!(Wanted { group, since, limit });

/// The sessions with the id, by the indexes: the id of a session, a message id, a key that is held, or a phone. Message ids and
/// keys are looked up in each group. Those that answer for the message id come first, and of the others the newest.
pub(crate) async fn find_by_index(
    executor: impl PgExecutor<'_>,
    wanted: &Wanted,
) -> Result<Vec<FoundSession>, sqlx::Error> {
    let group = wanted.group.map(GroupId::get);
    let session = Uuid::try_parse(&wanted.id).ok();
    sqlx::query_as!(
        FoundSession,
        r#"
        select m.id as "id!", min(m.by) as "by!" from (
            select s.id, 'session_id' as by, false as owns from sessions s where s.id = $1 and ($4::bigint is null or s.group_id = $4)
            union all
            select o.id, 'message_id', true from groups g
             cross join lateral (select id from sessions where group_id = g.id and message_id = $2 and owns_message_id offset 0) o
             where $4::bigint is null or g.id = $4
            union all
            select f.id, 'message_id', false from groups g
             cross join lateral (select id from sessions where group_id = g.id and message_id = $2 and not owns_message_id
                                  order by id desc limit $5) f
             where $4::bigint is null or g.id = $4
            union all
            select k.id, 'key', false from groups g
             cross join lateral (select id from sessions where group_id = g.id and session_key = $2 and key_held offset 0) k
             where $4::bigint is null or g.id = $4
            union all
            select t.id, 'phone', false from sessions t
             where t.phone = any($3) and t.token is not null and ($4::bigint is null or t.group_id = $4)
            union all
            select u.id, 'phone', false from sessions u
             where u.phone = any($3) and u.token is null and ($4::bigint is null or u.group_id = $4)
        ) m group by m.id order by bool_or(m.owns) desc, m.id desc limit $5
        "#,
        session,
        wanted.id,
        &wanted.phones,
        group,
        wanted.limit,
    )
    .fetch_all(executor)
    .await
}

/// The newest sessions with the id in a column that no index has: a correlation id, the provider's id of a text, or a key that
/// was released. Reads all sessions since `wanted.since`, by their ids.
pub(crate) async fn find_by_reading(
    executor: impl PgExecutor<'_>,
    wanted: &Wanted,
) -> Result<Vec<FoundSession>, sqlx::Error> {
    sqlx::query_as!(
        FoundSession,
        r#"
        select id, case when provider_message_id = $1 then 'provider_id'
                        when correlation_id = $1 then 'correlation_id'
                        else 'former_key' end as "by!"
          from sessions
         where id between $2 and $3 and ($4::bigint is null or group_id = $4)
           and (provider_message_id = $1 or correlation_id = $1 or (session_key = $1 and not key_held))
         order by id desc limit $5
        "#,
        wanted.id,
        first_id(wanted.since - ID_IS_WITHIN),
        Uuid::max(),
        wanted.group.map(GroupId::get),
        wanted.limit,
    )
    .fetch_all(executor)
    .await
}

/// What the story needs beside what `sessions show` shows.
#[derive(Debug)]
pub(crate) struct Circumstances {
    /// When the request was published, by its timestamp.
    pub(crate) published_at: Option<OffsetDateTime>,
    pub(crate) deadline_at: Option<OffsetDateTime>,
    /// Whether what names a person was removed.
    pub(crate) blanked: bool,
    /// Whether the database had lost rows before the session began.
    pub(crate) looks_first: bool,
    /// `None` if the group was removed.
    pub(crate) group_enabled: Option<bool>,
    pub(crate) group_paused_at: Option<OffsetDateTime>,
    /// Whether the outbox has more events than are looked at.
    pub(crate) outbox_is_long: bool,
}

pub(crate) async fn circumstances(
    executor: impl PgExecutor<'_>,
    session: Uuid,
) -> Result<Option<Circumstances>, sqlx::Error> {
    sqlx::query_as!(
        Circumstances,
        r#"
        select s.published_at, s.deadline_at, s.blanked as "blanked!", s.look_since is not null as "looks_first!",
               g.enabled as "group_enabled?", g.paused_at as "group_paused_at?",
               exists (select from events order by id desc offset $2) as "outbox_is_long!"
          from sessions s left join groups g on g.id = s.group_id
         where s.id = $1
        "#,
        session,
        EVENTS_LOOKED_AT,
    )
    .fetch_optional(executor)
    .await
}

/// An event that is not published yet.
#[derive(Debug)]
pub(crate) struct WaitingEvent {
    pub(crate) event: String,
    pub(crate) at: OffsetDateTime,
}

/// A session's events among the newest [`EVENTS_LOOKED_AT`] of the outbox, which has no index of sessions: it is empty while
/// the broker takes them.
pub(crate) async fn waiting_events(
    executor: impl PgExecutor<'_>,
    session: Uuid,
) -> Result<Vec<WaitingEvent>, sqlx::Error> {
    sqlx::query_as!(
        WaitingEvent,
        "select event, at from (select id, session_id, event, at from events order by id desc limit $2) newest
          where session_id = $1 order by id limit 20",
        session,
        EVENTS_LOOKED_AT,
    )
    .fetch_all(executor)
    .await
}
