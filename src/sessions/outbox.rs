//! The table `events`: the outbox, which holds events of sessions until they are published.

use crate::{
    db::{self, kinds},
    masked::debug_shows,
};
use sqlx::{PgPool, Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

/// Events in one batch, at most.
pub(crate) const EVENTS_IN_A_BATCH: usize = 500;
/// The advisory lock of the worker that publishes: `events` in ASCII.
const LOCK: i64 = 0x65_76_65_6e_74_73;

/// One step of a session.
pub(crate) struct SessionEvent {
    pub(crate) id: i64,
    pub(crate) uid: Uuid,
    pub(crate) session_id: Uuid,
    pub(crate) group_id: i64,
    /// Of the invite.
    pub(crate) message_id: Option<String>,
    /// The trace of the invite.
    pub(crate) traceparent: Option<String>,
    pub(crate) session_key: Option<String>,
    pub(crate) name: String,
    pub(crate) at: OffsetDateTime,
}

debug_shows!(SessionEvent { id, session_id, name });

/// The events that wait to be published.
#[derive(Debug)]
pub(crate) struct Outbox {
    pool: PgPool,
}

/// The first events, under a lock that keeps other workers from them until this is dropped.
#[derive(Debug)]
pub(crate) struct EventBatch {
    transaction: Transaction<'static, Postgres>,
    events: Vec<SessionEvent>,
}

impl Outbox {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    pub(crate) async fn is_empty(&self) -> Result<bool, sqlx::Error> {
        let found = db::with_time_limit(Box::pin(exists(&self.pool))).await;
        kinds::LOOK_FOR_EVENTS.note(&found);
        found.map(|exists| !exists)
    }

    /// The first events; `None` if another worker has the lock.
    pub(crate) async fn take(&self) -> Result<Option<EventBatch>, sqlx::Error> {
        let taken = db::with_time_limit(Box::pin(lock_and_read(&self.pool))).await;
        if taken.is_err() {
            // `EventBatch::delete` notes the success.
            kinds::PUBLISH_EVENTS.note(&taken);
        }
        taken
    }
}

impl EventBatch {
    pub(crate) fn events(&self) -> &[SessionEvent] {
        &self.events
    }

    /// Deletes them once they are published.
    pub(crate) async fn delete(self) -> Result<Vec<SessionEvent>, sqlx::Error> {
        let ids: Vec<i64> = self.events.iter().map(|event| event.id).collect();
        let deleted = db::with_time_limit(Box::pin(delete(self.transaction, &ids))).await;
        kinds::PUBLISH_EVENTS.note(&deleted);
        deleted.map(|()| self.events)
    }
}

async fn exists(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select exists (select from events) as "exists!""#).fetch_one(pool).await
}

async fn lock_and_read(pool: &PgPool) -> Result<Option<EventBatch>, sqlx::Error> {
    let mut transaction = db::begin(pool).await?;
    if !try_lock(&mut transaction).await? {
        return Ok(None);
    }
    let events = first(&mut transaction).await?;
    Ok(Some(EventBatch { transaction, events }))
}

/// Takes the lock until the transaction ends; answers whether it was free.
async fn try_lock(transaction: &mut Transaction<'_, Postgres>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "locked!""#, LOCK)
        .fetch_one(&mut **transaction)
        .await
}

async fn delete(mut transaction: Transaction<'_, Postgres>, ids: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from events where id = any($1)", ids).execute(&mut *transaction).await?;
    transaction.commit().await
}

async fn first(transaction: &mut Transaction<'_, Postgres>) -> Result<Vec<SessionEvent>, sqlx::Error> {
    sqlx::query_as!(
        SessionEvent,
        "select e.id, e.uid, e.session_id, e.group_id, e.session_key, e.event as name, e.at,
                (select s.message_id from sessions s where s.id = e.session_id) as message_id,
                (select s.traceparent from sessions s where s.id = e.session_id) as traceparent
           from events e order by e.id limit $1",
        i64::try_from(EVENTS_IN_A_BATCH).unwrap_or(i64::MAX)
    )
    .fetch_all(&mut **transaction)
    .await
}
