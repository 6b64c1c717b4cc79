//! Requests that came again and again, counted by us: the broker's own count differs between its versions, and is shared
//! by all that were under way when a line or a process ended.

use crate::{
    db::{kinds, persist},
    trouble::Trouble,
};
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// The table `suspects`.
#[derive(Debug, Clone)]
pub struct Suspects {
    pool: PgPool,
    stop: CancellationToken,
}

/// How often a request was begun.
#[derive(Debug, Clone, Copy)]
pub struct Tried {
    /// With this time.
    pub tries: i32,
    pub first_at: OffsetDateTime,
}

impl Suspects {
    /// `stop` ends the waiting for a database that is away.
    pub fn new(pool: PgPool, stop: CancellationToken) -> Self {
        Self { pool, stop }
    }

    /// Counts a try, before it is made.
    pub async fn begin(&self, request_sha256: &[u8; 32]) -> Result<Tried, Trouble> {
        let begin = || {
            sqlx::query_as!(
                Tried,
                "insert into suspects as s (request_sha256) values ($1)
                 on conflict (request_sha256) do update set tries = s.tries + 1, last_at = now()
                 returning tries, first_at",
                request_sha256.as_slice()
            )
            .fetch_one(&self.pool)
        };
        persist(&kinds::COUNT_SUSPECT, &self.stop, begin).await
    }

    /// It came to an end; what cannot be forgotten now is forgotten with old age.
    pub async fn settled(&self, request_sha256: &[u8; 32]) {
        let forget = || {
            sqlx::query!(
                "delete from suspects where request_sha256 = $1 or last_at < now() - interval '7 days'",
                request_sha256.as_slice()
            )
            .execute(&self.pool)
        };
        if let Err(error) = persist(&kinds::FORGET_SUSPECT, &self.stop, forget).await {
            tracing::debug!(%error, "a suspect is not forgotten yet");
        }
    }
}
