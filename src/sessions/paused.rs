//! The invites of paused groups: how many wait, and how they go on once their group is resumed.

use crate::{db, group::directory::Directory, group_id::GroupId};
use sqlx::{PgExecutor, PgPool};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use time::format_description::well_known::Rfc3339;
use tokio::sync::Mutex;

/// How long a count is shown: anyone can request the gateway's `/readyz`.
const COUNTED_EVERY: Duration = Duration::from_secs(5);
/// How long `/readyz` waits for a count.
const PATIENCE: Duration = Duration::from_secs(1);

/// What readiness says of the paused groups.
#[derive(Debug)]
pub(crate) struct PausedGroups {
    pool: PgPool,
    directory: Arc<Directory>,
    counted: Mutex<Option<(Instant, HashMap<i64, i64>)>>,
}

impl PausedGroups {
    pub(crate) fn new(pool: PgPool, directory: Arc<Directory>) -> Self {
        Self { pool, directory, counted: Mutex::const_new(None) }
    }

    /// A line for each paused group, with what ends the pause.
    pub(crate) async fn problems(&self) -> Vec<String> {
        let groups = self.directory.snapshot();
        let mut paused: Vec<_> =
            groups.paused().filter_map(|group| Some((group.id.get(), group.paused_at?))).collect();
        if paused.is_empty() {
            return Vec::new();
        }
        paused.sort_unstable();
        let counts = tokio::time::timeout(PATIENCE, self.counts()).await.unwrap_or_default();
        let line = |(group, since): (i64, time::OffsetDateTime)| {
            let since = since.format(&Rfc3339).unwrap_or_default();
            let waiting = match &counts {
                Some(counts) => format!("; invites that wait: {}", counts.get(&group).unwrap_or(&0)),
                None => String::new(),
            };
            format!(
                "group {group} is paused since {since}{waiting}; `session-invite groups resume {group}` ends that"
            )
        };
        paused.into_iter().map(line).collect()
    }

    /// `None` if the database does not answer.
    async fn counts(&self) -> Option<HashMap<i64, i64>> {
        let mut counted = self.counted.lock().await;
        if let Some((at, counts)) = &*counted
            && at.elapsed() < COUNTED_EVERY
        {
            return Some(counts.clone());
        }
        // Its failure shows in no readiness: an operator can do without the number.
        let counts = db::with_time_limit(Box::pin(waiting(&self.pool))).await.ok()?;
        *counted = Some((Instant::now(), counts.clone()));
        Some(counts)
    }
}

/// The open invites of each paused group.
pub(crate) async fn waiting(pool: &PgPool) -> Result<HashMap<i64, i64>, sqlx::Error> {
    let counts = sqlx::query!(
        r#"
        select g.id, w.waiting as "waiting!"
          from groups g cross join lateral
               -- By the index on what is due: an open session is due when it expires.
               (select count(*) as waiting from sessions s
                 where s.key_held and s.due_at <= now() + make_interval(secs => g.session_ttl)
                   and s.group_id = g.id and s.status = 'sending') w
         where g.paused_at is not null
        "#
    )
    .fetch_all(pool)
    .await?;
    Ok(counts.into_iter().map(|row| (row.id, row.waiting)).collect())
}

/// The open invites of a group, which wait if it is paused.
pub(crate) async fn waiting_in_group(db: impl PgExecutor<'_>, group: GroupId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        select count(*) as "waiting!" from groups g join sessions s
               -- By the same index.
            on s.key_held and s.due_at <= now() + make_interval(secs => g.session_ttl)
           and s.group_id = g.id and s.status = 'sending'
         where g.id = $1
        "#,
        group.get()
    )
    .fetch_one(db)
    .await
}

/// Has workers go on with a group's invites that wait, once the end of its pause is committed. Returns how many. A row that a
/// worker has at this moment is left to that worker.
pub(crate) async fn wake(pool: &PgPool, group: GroupId) -> Result<u64, sqlx::Error> {
    let woken = sqlx::query!(
        r#"
        with resumed as (
            -- An invite that has seen the pause was written before this transaction began.
            update groups set resumed_at = now() where id = $1 and paused_at is null returning session_ttl
        ),
        waiting as (
            select s.id from resumed g cross join sessions s
             where s.key_held and s.due_at <= now() + make_interval(secs => g.session_ttl)
               and s.group_id = $1 and s.status = 'sending'
               and coalesce(s.lease_until, now()) <= now() + interval '0.3 s'
               for update of s skip locked
        )
        update sessions s set resume_at = now() from waiting where s.id = any(array[waiting.id])
        "#,
        group.get()
    )
    .execute(pool)
    .await?;
    Ok(woken.rows_affected())
}
