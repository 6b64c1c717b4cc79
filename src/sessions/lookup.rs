//! Reading sessions, for people and for agents.

use super::{Status, TextState};
use crate::group_id::GroupId;
use crate::masked::debug_shows;
use serde::Serialize;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

/// A session as an operator sees it.
#[derive(Serialize)]
pub struct Row {
    pub id: Uuid,
    pub group_id: i64,
    pub session_key: Option<String>,
    pub status: Status,
    pub session_type: Option<i32>,
    pub session_params: serde_json::Value,
    pub phone: Option<String>,
    pub invitation_text: Option<String>,
    pub requested_by: String,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    pub attempts: i32,
    /// What is known of the text: see docs/DELIVERY.md.
    pub text_state: Option<TextState>,
    pub looks: i32,
    #[serde(with = "time::serde::rfc3339::option")]
    pub lease_until: Option<OffsetDateTime>,
    pub provider_message_id: Option<String>,
    pub error_code: Option<String>,
    pub error: Option<serde_json::Value>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub sent_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub delivered_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub undelivered_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub joined_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

debug_shows!(Row { id, group_id, status });

/// Which sessions to list; `None` for any.
#[derive(Debug, Default)]
pub struct Filter {
    pub group: Option<GroupId>,
    pub status: Option<Status>,
    pub message_id: Option<String>,
    pub limit: i64,
}

/// The newest sessions first.
pub async fn list(pool: &PgPool, filter: &Filter) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"select id, group_id, session_key, status as "status: Status", session_type, session_params, phone, invitation_text, requested_by,
                message_id, correlation_id, attempts, text_state as "text_state: TextState", looks, lease_until, provider_message_id, error_code, error, created_at, sent_at,
                delivered_at, undelivered_at, joined_at, ended_at, expires_at, updated_at
           from sessions
          where ($1::bigint is null or group_id = $1) and ($2::text is null or status = $2)
            and ($3::text is null or message_id = $3)
          order by id desc limit $4"#,
        filter.group.map(GroupId::get),
        filter.status.map(Status::as_str),
        filter.message_id,
        filter.limit,
    )
    .fetch_all(pool)
    .await
}

pub async fn show(pool: &PgPool, id: Uuid) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"select id, group_id, session_key, status as "status: Status", session_type, session_params, phone, invitation_text, requested_by,
                message_id, correlation_id, attempts, text_state as "text_state: TextState", looks, lease_until, provider_message_id, error_code, error, created_at, sent_at,
                delivered_at, undelivered_at, joined_at, ended_at, expires_at, updated_at
           from sessions where id = $1"#,
        id
    )
    .fetch_optional(pool)
    .await
}

/// The live session that holds this key in its group.
pub async fn by_key(pool: &PgPool, group: GroupId, key: &str) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"select id, group_id, session_key, status as "status: Status", session_type, session_params, phone, invitation_text, requested_by,
                message_id, correlation_id, attempts, text_state as "text_state: TextState", looks, lease_until, provider_message_id, error_code, error, created_at, sent_at,
                delivered_at, undelivered_at, joined_at, ended_at, expires_at, updated_at
           from sessions
          where id = (select id from live_sessions where group_id = $1 and session_key = $2)"#,
        group.get(),
        key
    )
    .fetch_optional(pool)
    .await
}

/// What a copy of a request's names its session by, without the request's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub session: Uuid,
    /// Proves that the copy is ours.
    pub ticket: Uuid,
}

/// The row of exactly this request, which shows that its sender was authenticated: by the group and message id that it
/// answers for; for a request without a message id among those of the last day whose acknowledgement is not sure.
pub async fn authenticated(
    pool: &PgPool,
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
        .fetch_optional(pool)
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
    .fetch_optional(pool)
    .await
}
