//! What is stored of one phone number: to hand it out, and to erase it (docs/OPERATING.md).
//!
//! A row stays as long as `RETENTION` says, without what names the person: it stops a second text.

use super::{content_hash::ContentHasher, retention::blank_rows, status::Status};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use uuid::Uuid;

/// Rows in one statement.
const BATCH: i64 = 500;

/// A session of the number.
#[derive(Debug)]
pub(crate) struct PersonalSession {
    pub(crate) id: Uuid,
    pub(crate) group_id: i64,
    pub(crate) status: Status,
    pub(crate) message_id: Option<String>,
    pub(crate) provider_message_id: Option<String>,
    /// It changed so recently that a message in a retry queue may still need its outcome.
    pub(crate) is_recent: bool,
    /// Its request had no message id, and the broker may deliver it again. Without the row, that would be a new invite.
    pub(crate) may_come_again: bool,
}

impl PersonalSession {
    /// Whether an agent can join it, or has joined it.
    pub(crate) fn is_live(&self) -> bool {
        use Status::{Delivered, Joined, Sent, Undelivered, Unknown};
        matches!(self.status, Sent | Delivered | Undelivered | Unknown | Joined)
    }
}

/// The sessions of a number (E.164, with its other form), oldest first.
pub(crate) async fn sessions_of(
    pool: &PgPool,
    phones: &[String],
    rest: Duration,
) -> Result<Vec<PersonalSession>, sqlx::Error> {
    sqlx::query_as!(
        PersonalSession,
        r#"
        select id, group_id, status as "status: Status", message_id, provider_message_id,
               updated_at > now() - make_interval(secs => $2) as "is_recent!",
               not acknowledged and created_at > now() - interval '1 day' as "may_come_again!"
          from sessions
         where id = any(array(select id from sessions where phone = any($1) and token is not null
                              union all
                              select id from sessions where phone = any($1) and token is null))
         order by id
        "#,
        phones,
        rest.as_secs_f64(),
    )
    .fetch_all(pool)
    .await
}

/// Whole rows, as JSON objects.
#[derive(Debug)]
pub(crate) struct PersonalRows {
    pub(crate) sessions: Vec<Value>,
    /// Events that are not published yet.
    pub(crate) events: Vec<Value>,
    pub(crate) steps: Vec<Value>,
}

/// All that the tables hold of a number's sessions. `ticket` is left out: with it a message passes as a worker's own.
pub(crate) async fn rows_of(pool: &PgPool, phones: &[String]) -> Result<PersonalRows, sqlx::Error> {
    let sessions = sqlx::query!(
        r#"
        select s.id, to_jsonb(s) - 'ticket' as "row!"
          from sessions s
         where id = any(array(select id from sessions where phone = any($1) and token is not null
                              union all
                              select id from sessions where phone = any($1) and token is null))
         order by id
        "#,
        phones,
    )
    .fetch_all(pool)
    .await?;
    let (ids, sessions): (Vec<_>, Vec<_>) = sessions.into_iter().map(|found| (found.id, found.row)).unzip();
    let events = sqlx::query_scalar!(
        r#"select to_jsonb(e) as "row!" from events e where session_id = any($1) order by id"#,
        &ids
    );
    let steps = sqlx::query_scalar!(
        r#"select to_jsonb(s) as "row!" from steps s where session_id = any($1) order by session_id, id"#,
        &ids
    );
    Ok(PersonalRows { sessions, events: events.fetch_all(pool).await?, steps: steps.fetch_all(pool).await? })
}

/// How many rows are stored of these sessions beside their own.
#[derive(Debug)]
pub(crate) struct PersonalCounts {
    pub(crate) events: i64,
    pub(crate) steps: i64,
}

pub(crate) async fn count(pool: &PgPool, sessions: &[Uuid]) -> Result<PersonalCounts, sqlx::Error> {
    sqlx::query_as!(
        PersonalCounts,
        r#"select (select count(*) from events where session_id = any($1)) as "events!",
                  (select count(*) from steps where session_id = any($1)) as "steps!""#,
        sessions
    )
    .fetch_one(pool)
    .await
}

/// Ends live sessions, as their agents would. Returns how many.
pub(crate) async fn end(connection: &mut PgConnection, sessions: &[Uuid]) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        with found as materialized (
            select id from sessions
             where id = any($1) and status in ('sent', 'delivered', 'undelivered', 'unknown', 'joined')
             order by id for update
        ),
        ended as (
            update sessions s
               set status = 'ended', ended_at = now(), updated_at = now(),
                   due_at = now() + make_interval(secs => coalesce((select g.key_rest from groups g where g.id = s.group_id), 86400))
              from found
             where s.id = any(array[found.id])
            returning s.id, s.group_id, s.session_key
        ),
        new_events as (
            insert into events (session_id, group_id, session_key, event)
            select id, group_id, session_key, 'ended' from ended
        )
        select count(*) as "ended!" from ended
        "#,
        sessions,
    )
    .fetch_one(connection)
    .await
}

/// What was erased.
#[derive(Debug, Default)]
pub(crate) struct ErasedRows {
    pub(crate) sessions: u64,
    pub(crate) events: u64,
    pub(crate) steps: u64,
}

/// Blanks the number's sessions that are over, and deletes their events and steps. A session that began meanwhile stays.
pub(crate) async fn erase(
    connection: &mut PgConnection,
    phones: &[String],
    hasher: &ContentHasher,
) -> Result<ErasedRows, sqlx::Error> {
    let mut erased = ErasedRows::default();
    loop {
        let rows = sqlx::query!(
            r#"
            select id, session_type, phone, session_params::text as "params!" from sessions
             where id = any(array(select id from sessions where phone = any($1) and token is not null
                                  union all
                                  select id from sessions where phone = any($1) and token is null))
               and status in ('expired', 'ended', 'rejected', 'failed')
               and (acknowledged or created_at <= now() - interval '1 day')
             order by id limit $2 for update
            "#,
            phones,
            BATCH,
        )
        .fetch_all(&mut *connection)
        .await?;
        if rows.is_empty() {
            return Ok(erased);
        }
        let (ids, hashes): (Vec<_>, Vec<_>) = rows
            .iter()
            .map(|row| (row.id, hasher.hash(row.session_type, row.phone.as_deref(), &row.params)))
            .unzip();
        erased.sessions += blank_rows(&mut *connection, &ids, &hashes).await?;
        let events = sqlx::query!("delete from events where session_id = any($1)", &ids);
        erased.events += events.execute(&mut *connection).await?.rows_affected();
        let steps = sqlx::query!("delete from steps where session_id = any($1)", &ids);
        erased.steps += steps.execute(&mut *connection).await?.rows_affected();
    }
}
