//! What an agent does with a session key: looks its session up, joins it, ends it.
//!
//! Each is one statement that locks the row while it decides, so two agents at once both get a right answer. A statement is
//! repeated if its connection was lost and a second run changes nothing.

use super::status::Status;
use crate::{
    db::{Patience, kinds, repeat},
    group_id::GroupId,
    masked::debug_shows,
    session_key::SessionKey,
};
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

/// A live session as an agent sees it.
#[derive(Clone, PartialEq)]
pub(crate) struct LiveSession {
    pub(crate) id: Uuid,
    pub(crate) group_id: i64,
    pub(crate) session_key: SessionKey,
    pub(crate) status: Status,
    pub(crate) session_type: Option<i32>,
    pub(crate) session_params: serde_json::Value,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) expires_at: Option<OffsetDateTime>,
    pub(crate) joined_at: Option<OffsetDateTime>,
}

debug_shows!(LiveSession { id, group_id, status });

/// The result of a request to end a session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EndResult {
    Ended(LiveSession),
    /// Its text is being handed over at this moment, so it cannot be ended yet. Worth trying again soon.
    NotSettled,
    NotLive,
}

/// The live session that holds the key in its group.
pub(crate) async fn look_up(
    pool: &PgPool,
    group: GroupId,
    key: &SessionKey,
) -> Result<Option<LiveSession>, sqlx::Error> {
    repeat(&kinds::LOOK_UP, Patience::Brief, || find(pool, group, key)).await
}

async fn find(pool: &PgPool, group: GroupId, key: &SessionKey) -> Result<Option<LiveSession>, sqlx::Error> {
    sqlx::query_as!(
        LiveSession,
        r#"
        select id, group_id, session_key as "session_key!: SessionKey", status as "status: Status",
               session_type, session_params, created_at, expires_at, joined_at
          from sessions
         where group_id = $1 and session_key = $2 and key_held
           and (status = 'joined' or (status in ('sending', 'sent', 'delivered', 'undelivered', 'unknown')
                                      and (expires_at > now() or joined_at is not null)))
        "#,
        group.get(),
        key.as_str(),
    )
    .fetch_optional(pool)
    .await
}

/// Marks a live session as joined, once or many times; `None` when no live session holds the key. A joined session does not
/// expire: it ends, at the latest after the group's `--session-max`.
///
/// A session whose text is being handed over keeps the status `sending` until the result is recorded. Until then only
/// `joined_at` shows that it is joined.
pub(crate) async fn join(
    pool: &PgPool,
    group: GroupId,
    key: &SessionKey,
) -> Result<Option<LiveSession>, sqlx::Error> {
    repeat(&kinds::JOIN, Patience::Brief, || mark_joined(pool, group, key)).await
}

async fn mark_joined(
    pool: &PgPool,
    group: GroupId,
    key: &SessionKey,
) -> Result<Option<LiveSession>, sqlx::Error> {
    sqlx::query_as!(
        LiveSession,
        r#"
        with found as materialized (
            select id, joined_at from sessions
             where group_id = $1 and session_key = $2 and key_held
               and (status = 'joined' or (status in ('sending', 'sent', 'delivered', 'undelivered', 'unknown')
                                          and (expires_at > now() or joined_at is not null)))
               for update
        ),
        joined as (
            update sessions s
               set status = case when s.status = 'sending' then s.status else 'joined' end,
                   joined_at = coalesce(s.joined_at, now()),
                   due_at = case when s.joined_at is null
                                 then now() + make_interval(secs => coalesce((select g.session_max from groups g where g.id = $1), 43200))
                                 else s.due_at end,
                   updated_at = case when s.joined_at is null then now() else s.updated_at end
              from found
             where s.id = any(array[found.id])
            returning s.id, s.group_id, s.session_key, s.status, s.session_type, s.session_params, s.created_at, s.expires_at,
                      s.joined_at, found.joined_at is null as first
        ),
        new_events as (
            insert into events (session_id, group_id, session_key, event)
            select id, group_id, session_key, 'joined' from joined where first
        )
        select id, group_id, session_key as "session_key!: SessionKey", status as "status: Status",
               session_type, session_params, created_at, expires_at, joined_at
          from joined
        "#,
        group.get(),
        key.as_str(),
    )
    .fetch_optional(pool)
    .await
}

/// Ends a live session: its key rests for the group's `--key-rest`, and is free after that.
pub(crate) async fn end(pool: &PgPool, group: GroupId, key: &SessionKey) -> Result<EndResult, sqlx::Error> {
    repeat(&kinds::END, Patience::Brief, || mark_ended(pool, group, key)).await
}

async fn mark_ended(pool: &PgPool, group: GroupId, key: &SessionKey) -> Result<EndResult, sqlx::Error> {
    let ended = sqlx::query_as!(
        LiveSession,
        r#"
        with found as materialized (
            select id from sessions
             where group_id = $1 and session_key = $2 and key_held
               and (status = 'joined' or (status in ('sent', 'delivered', 'undelivered', 'unknown') and expires_at > now()))
               for update
        ),
        ended as (
            update sessions s
               set status = 'ended', ended_at = now(), updated_at = now(),
                   due_at = now() + make_interval(secs => coalesce((select g.key_rest from groups g where g.id = $1), 86400))
              from found
             where s.id = any(array[found.id])
            returning s.id, s.group_id, s.session_key, s.status, s.session_type, s.session_params, s.created_at, s.expires_at,
                      s.joined_at
        ),
        new_events as (
            insert into events (session_id, group_id, session_key, event)
            select id, group_id, session_key, 'ended' from ended
        )
        select id, group_id, session_key as "session_key!: SessionKey", status as "status: Status",
               session_type, session_params, created_at, expires_at, joined_at
          from ended
        "#,
        group.get(),
        key.as_str(),
    )
    .fetch_optional(pool)
    .await?;
    Ok(match ended {
        Some(session) => EndResult::Ended(session),
        None if find(pool, group, key).await?.is_some() => EndResult::NotSettled,
        None => EndResult::NotLive,
    })
}
