//! What the visitor's page shows of a session, by the token of its link.

use crate::{
    db::{Patience, kinds, repeat},
    masked::debug_shows,
    session_key::{SessionKey, Token},
};
use sqlx::PgPool;

/// A session as its visitor sees it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct VisitedSession {
    pub(crate) group_id: i64,
    pub(crate) session_key: SessionKey,
    /// Whether an agent can join it, or has.
    pub(crate) is_live: bool,
}

debug_shows!(VisitedSession { group_id, is_live });

/// The session whose link this is, for as long as it holds its key.
pub(crate) async fn visit(pool: &PgPool, token: &Token) -> Result<Option<VisitedSession>, sqlx::Error> {
    repeat(&kinds::VISIT, Patience::Brief, || find(pool, token)).await
}

async fn find(pool: &PgPool, token: &Token) -> Result<Option<VisitedSession>, sqlx::Error> {
    sqlx::query_as!(
        VisitedSession,
        r#"
        select group_id, session_key as "session_key!: SessionKey",
               coalesce(status = 'joined' or (status in ('sending', 'sent', 'delivered', 'undelivered', 'unknown')
                                              and (expires_at > now() or joined_at is not null)), false) as "is_live!"
          from sessions
         where token = $1 and key_held
        "#,
        token.as_str(),
    )
    .fetch_optional(pool)
    .await
}
