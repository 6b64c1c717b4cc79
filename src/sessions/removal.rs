//! Deletes the sessions of a group that is removed (docs/OPERATING.md).

use crate::group_id::GroupId;
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

/// Rows in one statement: few enough that no invite waits for it.
const BATCH: i64 = 500;

/// What one statement has deleted.
#[derive(Debug)]
pub(crate) struct RemovedBatch {
    pub(crate) deleted: i64,
    /// The highest id among them; `None` if there was nothing to delete.
    pub(crate) last: Option<Uuid>,
}

/// Which of a group's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupSessions {
    /// Those whose invite has no outcome yet.
    InFlight,
    All,
}

/// Deletes a batch of a group's sessions with higher ids than `after`. An invite without an outcome stays, and so does a row
/// that changed within `rest`: a message in a retry queue may still need its outcome for a reply. The end of a live session is
/// an event, as if its agent had ended it.
pub(crate) async fn remove(
    pool: &PgPool,
    group: GroupId,
    after: Uuid,
    rest: Duration,
) -> Result<RemovedBatch, sqlx::Error> {
    sqlx::query_as!(
        RemovedBatch,
        r#"
        with old as materialized (
            select id from sessions
             where group_id = $1 and id > $2 and status <> 'sending' and updated_at < now() - make_interval(secs => $4)
             order by id limit $3 for update skip locked
        ),
        removed as (
            delete from sessions s using old where s.id = any(array[old.id])
            returning s.id, s.group_id, s.session_key, s.status
        ),
        without_steps as (
            delete from steps k using removed where k.session_id = any(array[removed.id])
        ),
        new_events as (
            insert into events (session_id, group_id, session_key, event)
            select id, group_id, session_key, 'ended' from removed
             where status in ('sent', 'delivered', 'undelivered', 'unknown', 'joined')
        )
        select count(*) as "deleted!", max(id::text)::uuid as last from removed
        "#,
        group.get(),
        after,
        BATCH,
        rest.as_secs_f64(),
    )
    .fetch_one(pool)
    .await
}

/// The first of a group's sessions whose id is not lower than `from`.
pub(crate) async fn first_left(
    pool: &PgPool,
    group: GroupId,
    which: GroupSessions,
    from: Uuid,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "select id from sessions
          where group_id = $1 and id >= $2 and ($3 or status = 'sending') order by id limit 1",
        group.get(),
        from,
        which == GroupSessions::All,
    )
    .fetch_optional(pool)
    .await
}
