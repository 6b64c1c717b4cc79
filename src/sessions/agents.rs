//! Temporary, until the verbs themselves land.

use crate::group::GroupId;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Live {
    pub id: Uuid,
    pub group_id: i64,
    pub session_key: String,
    pub status: String,
    pub session_type: Option<i32>,
    pub session_params: serde_json::Value,
    pub created_at: OffsetDateTime,
    pub expires_at: Option<OffsetDateTime>,
    pub joined_at: Option<OffsetDateTime>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    Ended(Live),
    NotSettled,
    NotLive,
}

pub async fn look_up(pool: &PgPool, group: GroupId, key: &str) -> Result<Option<Live>, sqlx::Error> {
    sqlx::query_as("select id, group_id, session_key, status, session_type, session_params, created_at, expires_at, joined_at from sessions where group_id = $1 and session_key = $2 and key_held and status in ('sending', 'sent', 'joined')")
        .bind(group.get())
        .bind(key)
        .fetch_optional(pool)
        .await
}

pub async fn join(pool: &PgPool, group: GroupId, key: &str) -> Result<Option<Live>, sqlx::Error> {
    look_up(pool, group, key).await
}

pub async fn end(pool: &PgPool, group: GroupId, key: &str) -> Result<Ending, sqlx::Error> {
    Ok(look_up(pool, group, key).await?.map_or(Ending::NotLive, Ending::Ended))
}
