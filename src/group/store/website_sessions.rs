//! Website sessions, as the Authorization Service writes them.

use crate::{credential::WebsiteSession, group_id::GroupId};
use sqlx::{PgPool, postgres::types::PgInterval};
use std::time::Duration;

/// Adds a session that ends `ttl` from now, by Postgres's clock.
pub async fn insert(
    pool: &PgPool,
    token_sha256: &[u8; 32],
    group: GroupId,
    person: &str,
    ttl: Duration,
) -> Result<(), sqlx::Error> {
    let ttl = PgInterval::try_from(ttl).map_err(sqlx::Error::Encode)?;
    sqlx::query!(
        "insert into website_sessions (token_sha256, group_id, person_id, expires_at) values ($1, $2, $3, now() + $4)",
        token_sha256.as_slice(),
        group.get(),
        person,
        ttl
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Finds a session by its token's SHA-256. Postgres's clock says whether it is over.
pub async fn find(pool: &PgPool, token_sha256: &[u8; 32]) -> Result<Option<WebsiteSession>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select group_id, person_id, expires_at <= now() as "expired!", coalesce(revoked_at <= now(), false) as "revoked!"
             from website_sessions where token_sha256 = $1"#,
        token_sha256.as_slice()
    )
    .fetch_optional(pool)
    .await?;
    // A group id out of range is nobody's: the session is as good as none.
    Ok(row.and_then(|row| {
        Some(WebsiteSession {
            group_id: GroupId::new(row.group_id)?,
            person_id: row.person_id,
            expired: row.expired,
            revoked: row.revoked,
        })
    }))
}
