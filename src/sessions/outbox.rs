//! The table `events`: the outbox of what became of sessions, until it is published.

use crate::{
    db::{self, kinds},
    masked::debug_shows,
};
use sqlx::{PgPool, Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

/// Events in one batch, at most.
pub const EVENTS_IN_A_BATCH: usize = 500;
/// The advisory lock of whoever publishes: `events` in ASCII.
const LOCK: i64 = 0x65_76_65_6e_74_73;

/// What became of a session.
pub struct Event {
    pub id: i64,
    pub uid: Uuid,
    pub session_id: Uuid,
    pub group_id: i64,
    /// The invite's.
    pub message_id: Option<String>,
    pub session_key: Option<String>,
    pub name: String,
    pub at: OffsetDateTime,
}

debug_shows!(Event { id, session_id, name });

/// The events that wait to be published.
#[derive(Debug)]
pub struct Outbox {
    pool: PgPool,
}

/// The first events, under a lock that keeps other workers from them until this is dropped.
#[derive(Debug)]
pub struct EventBatch {
    transaction: Transaction<'static, Postgres>,
    events: Vec<Event>,
}

impl Outbox {
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    pub async fn is_empty(&self) -> Result<bool, sqlx::Error> {
        let found = db::answered(Box::pin(exists(&self.pool))).await;
        kinds::LOOK_FOR_EVENTS.note(&found);
        found.map(|exists| !exists)
    }

    /// The first events; `None` if another worker has the lock.
    pub async fn take(&self) -> Result<Option<EventBatch>, sqlx::Error> {
        let taken = db::answered(Box::pin(lock_and_read(&self.pool))).await;
        if taken.is_err() {
            // Success is what ends with the delete.
            kinds::PUBLISH_EVENTS.note(&taken);
        }
        taken
    }
}

impl EventBatch {
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Deletes them, since they are published.
    pub async fn delete(self) -> Result<Vec<Event>, sqlx::Error> {
        let ids: Vec<i64> = self.events.iter().map(|event| event.id).collect();
        let deleted = db::answered(Box::pin(delete(self.transaction, &ids))).await;
        kinds::PUBLISH_EVENTS.note(&deleted);
        deleted.map(|()| self.events)
    }
}

async fn exists(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select exists (select from events) as "there!""#).fetch_one(pool).await
}

async fn lock_and_read(pool: &PgPool) -> Result<Option<EventBatch>, sqlx::Error> {
    let mut transaction = db::begin(pool).await?;
    if !is_mine(&mut transaction).await? {
        return Ok(None);
    }
    let events = first(&mut transaction).await?;
    Ok(Some(EventBatch { transaction, events }))
}

/// Takes the lock until the transaction ends.
async fn is_mine(transaction: &mut Transaction<'_, Postgres>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "mine!""#, LOCK)
        .fetch_one(&mut **transaction)
        .await
}

async fn delete(mut transaction: Transaction<'_, Postgres>, ids: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from events where id = any($1)", ids).execute(&mut *transaction).await?;
    transaction.commit().await
}

async fn first(transaction: &mut Transaction<'_, Postgres>) -> Result<Vec<Event>, sqlx::Error> {
    sqlx::query_as!(
        Event,
        "select e.id, e.uid, e.session_id, e.group_id, e.session_key, e.event as name, e.at,
                (select s.message_id from sessions s where s.id = e.session_id) as message_id
           from events e order by e.id limit $1",
        i64::try_from(EVENTS_IN_A_BATCH).unwrap_or(i64::MAX)
    )
    .fetch_all(&mut **transaction)
    .await
}
