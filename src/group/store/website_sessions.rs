//! Website sessions, as the Authorization Service writes them.

use crate::{
    audit::{Change, Operator},
    credential::WebsiteSession,
    group_id::GroupId,
};
use serde_json::json;
use sqlx::{PgPool, postgres::types::PgInterval};
use std::time::Duration;

/// Adds a website session that expires after `ttl`, by Postgres's clock.
pub(crate) async fn insert(
    operator: &Operator,
    token_sha256: &[u8; 32],
    group: GroupId,
    person: &str,
    ttl: Duration,
) -> Result<(), sqlx::Error> {
    let ttl = PgInterval::try_from(ttl).map_err(sqlx::Error::Encode)?;
    operator
        .change(Some(group), async |tx| {
            sqlx::query!(
                "insert into website_sessions (token_sha256, group_id, person_id, expires_at) values ($1, $2, $3, now() + $4)",
                token_sha256.as_slice(),
                group.get(),
                person,
                ttl
            )
            .execute(tx)
            .await?;
            Ok(Change { value: (), before: None, after: Some(json!({"type": "GSSNID", "user": person})) })
        })
        .await
}

/// Finds a website session by its token's SHA-256. Postgres's clock decides whether it is expired.
pub(crate) async fn find(
    pool: &PgPool,
    token_sha256: &[u8; 32],
) -> Result<Option<WebsiteSession>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select group_id, person_id, expires_at <= now() as "expired!", coalesce(revoked_at <= now(), false) as "revoked!"
             from website_sessions where token_sha256 = $1"#,
        token_sha256.as_slice()
    )
    .fetch_optional(pool)
    .await?;
    // No group has an id out of range, so that such a row counts as missing.
    Ok(row.and_then(|row| {
        Some(WebsiteSession {
            group_id: GroupId::new(row.group_id)?,
            person_id: row.person_id,
            expired: row.expired,
            revoked: row.revoked,
        })
    }))
}
