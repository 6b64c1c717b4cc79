//! Suspects: requests that were delivered repeatedly, and may be what ends the workers. We count them ourselves: the
//! broker's count differs between its versions, and also includes deliveries that were in flight beside the suspect when a
//! connection or a process ended.

use crate::{
    db::{kinds, persist},
    trouble::Trouble,
};
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// The table `suspects`.
#[derive(Debug, Clone)]
pub(crate) struct Suspects {
    pool: PgPool,
    stop: CancellationToken,
}

/// How often a suspect was processed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SuspectCount {
    /// With the one that begins now.
    pub tries: i32,
    pub first_at: OffsetDateTime,
}

impl Suspects {
    /// `stop` ends the wait for an unavailable database.
    pub(crate) fn new(pool: PgPool, stop: CancellationToken) -> Self {
        Self { pool, stop }
    }

    /// Counts a suspect before it is processed.
    pub(crate) async fn count(&self, request_sha256: &[u8; 32]) -> Result<SuspectCount, Trouble> {
        let count = || {
            sqlx::query_as!(
                SuspectCount,
                "insert into suspects as s (request_sha256) values ($1)
                 on conflict (request_sha256) do update set tries = s.tries + 1, last_at = now()
                 returning tries, first_at",
                request_sha256.as_slice()
            )
            .fetch_one(&self.pool)
        };
        persist(&kinds::COUNT_SUSPECT, &self.stop, count).await
    }

    /// Deletes a suspect that was settled, and old ones. A row that cannot be deleted now is deleted when it is old.
    pub(crate) async fn forget(&self, request_sha256: &[u8; 32]) {
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
