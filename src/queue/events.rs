//! The outbox's way to the broker: what `sessions` wrote into `events` is published to the topic exchange
//! `QUEUE_PREFIX.events`, and deleted once the broker has confirmed it. So each event is published at least once, and those
//! of one session in their order: one worker at a time publishes, under a lock that its death frees.

use super::{
    Cause, Names,
    connection::{Right, Unusable, connect},
    metrics, topology,
};
use crate::{
    backoff::Backoff,
    config::BrokerConfig,
    db::{self, Passing, kinds},
    invite::reply::to_the_second,
    supervise::{Pulse, Task, keep_up},
};
use futures::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use serde::Serialize;
use sqlx::{PgPool, Postgres, Transaction};
use std::{sync::Arc, time::Duration};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Events in one transaction.
const BATCH: i64 = 500;
/// How often the outbox is looked at while it is empty.
const EVERY: Duration = Duration::from_millis(200);
/// How long a connection and its channel may take.
const OPENS_WITHIN: Duration = Duration::from_secs(15);
/// How long the broker may take to confirm a batch. The client never ends what it waits for on a line that is lost.
const CONFIRMS_WITHIN: Duration = Duration::from_secs(10);
/// An idle connection to the broker is closed after so long.
const IDLE_AT_MOST: Duration = Duration::from_mins(5);
/// The advisory lock of whoever publishes: `events` in ASCII.
const LOCK: i64 = 0x65_76_65_6e_74_73;

/// What became of a session.
struct Event {
    id: i64,
    uid: Uuid,
    session_id: Uuid,
    group_id: i64,
    /// The invite's.
    message_id: Option<String>,
    session_key: Option<String>,
    name: String,
    at: OffsetDateTime,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    session_id: Uuid,
    groupid: i64,
    message_id: Option<&'a str>,
    session_key: Option<&'a str>,
    status: &'a str,
    at: String,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", .0.summary())]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Broker(#[from] Unusable),
    #[error("the broker did not confirm")]
    Unconfirmed,
}

/// Publishes what comes into the outbox.
#[derive(Debug)]
pub struct Events {
    pool: PgPool,
    config: BrokerConfig,
    names: Names,
    /// Why the broker takes none.
    problem: Arc<Cause>,
}

/// What a step has come to.
enum Step {
    /// So many were published; none if there are none.
    Published(i64),
    /// Another worker is at it.
    Elsewhere,
}

/// A line to the broker that is there while there are events.
struct Line {
    connection: Connection,
    channel: Channel,
    used: tokio::time::Instant,
}

impl Events {
    /// `problem` says meanwhile why the broker takes no events.
    pub fn new(pool: PgPool, config: BrokerConfig, problem: Arc<Cause>) -> Self {
        let names = Names::new(&config.queue_prefix);
        Self { pool, config, names, problem }
    }

    /// Publishes until `stop`. What fails is done again later: the outbox keeps it, and invites never wait for it.
    pub fn start(self, stop: CancellationToken) {
        let events = Arc::new(self);
        keep_up(Task::Events, stop.clone(), move |pulse| events.clone().run(stop.clone(), pulse));
    }

    async fn run(self: Arc<Self>, stop: CancellationToken, pulse: Pulse) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let (mut line, mut told) = (None, String::new());
        loop {
            pulse.step("publishing events from the outbox");
            let Some(step) = stop.run_until_cancelled(self.step(&mut line)).await else { break };
            pulse.idle();
            match step {
                Ok(step) => {
                    // Whoever leaves it to another learns nothing of the broker.
                    if let Step::Published(_) = step {
                        self.problem.clear();
                        if !std::mem::take(&mut told).is_empty() {
                            tracing::info!("events are published again");
                        }
                    }
                    backoff.reset();
                    if !matches!(step, Step::Published(BATCH..)) {
                        let pause = EVERY.mul_f64(rand::random_range(0.8..1.2));
                        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    }
                }
                Err(error) => {
                    line = None;
                    let why = error.to_string();
                    // What the database refuses is told by its own part of readiness.
                    if !matches!(error, Failure::Database(_)) {
                        self.problem.is(why.clone());
                    }
                    if told != why {
                        tracing::warn!(%error, "events cannot be published; trying again until it works");
                        told = why;
                    }
                    stop.run_until_cancelled(backoff.wait()).await;
                }
            }
        }
        if let Some(Line { connection, .. }) = line {
            let closing = connection.close(200, "done".into());
            let _ = tokio::time::timeout(Duration::from_secs(1), closing).await;
        }
    }

    /// Publishes one batch, if there is one and nobody else is at it.
    async fn step(&self, line: &mut Option<Line>) -> Result<Step, Failure> {
        let there = db::answered(Box::pin(self.is_anything_there())).await;
        kinds::LOOK_FOR_EVENTS.note(&there);
        if !there? {
            if line.as_ref().is_some_and(|line| line.used.elapsed() > IDLE_AT_MOST) {
                *line = None;
            }
            return Ok(Step::Published(0));
        }
        let open = match line.take().filter(|line| line.channel.status().connected()) {
            Some(open) => line.insert(open),
            None => line.insert(self.open().await?),
        };
        let taken = db::answered(Box::pin(self.take())).await;
        if taken.is_err() {
            // Success is what ends with the delete.
            kinds::PUBLISH_EVENTS.note(&taken);
        }
        let Some((transaction, events)) = taken? else { return Ok(Step::Elsewhere) };
        self.publish(&open.channel, &events).await?;
        open.used = tokio::time::Instant::now();
        let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
        let deleted = db::answered(Box::pin(delete(transaction, &ids))).await;
        kinds::PUBLISH_EVENTS.note(&deleted);
        deleted?;
        for event in &events {
            metrics::event_published(&event.name);
        }
        Ok(Step::Published(i64::try_from(ids.len()).unwrap_or(BATCH)))
    }

    /// The first events and the transaction whose lock keeps others from them; `None` if another worker has it.
    async fn take(&self) -> Result<Option<(Transaction<'static, Postgres>, Vec<Event>)>, sqlx::Error> {
        let mut transaction = db::begin(&self.pool).await?;
        if !is_mine(&mut transaction).await? {
            return Ok(None);
        }
        let events = first(&mut transaction).await?;
        Ok(Some((transaction, events)))
    }

    async fn is_anything_there(&self) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar!(r#"select exists (select from events) as "there!""#).fetch_one(&self.pool).await
    }

    /// The client never ends what it is asked for on a connection that is lost.
    async fn open(&self) -> Result<Line, Unusable> {
        let opened = tokio::time::timeout(OPENS_WITHIN, self.connect()).await;
        opened.unwrap_or_else(|_| Err(Unusable::lost("it takes too long to open a channel")))
    }

    async fn connect(&self) -> Result<Line, Unusable> {
        let connection = connect(&self.config, "events").await?;
        // Somebody may have deleted it.
        topology::declare_events(&connection, &self.names).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Line { connection, channel, used: tokio::time::Instant::now() })
    }

    async fn publish(&self, channel: &Channel, events: &[Event]) -> Result<(), Failure> {
        let publishing = async {
            let confirms = events.iter().map(|event| self.publish_one(channel, event));
            let confirmed = try_join_all(try_join_all(confirms).await?).await?;
            Ok::<_, lapin::Error>(confirmed.iter().all(Confirmation::is_ack))
        };
        match tokio::time::timeout(CONFIRMS_WITHIN, publishing).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) | Err(_) => Err(Failure::Unconfirmed),
            Ok(Err(error)) => Err(Failure::Broker(Unusable::of(Right::Write, &self.names.events, error))),
        }
    }

    /// Nobody has to listen: an event that no queue is bound for is dropped by the broker.
    async fn publish_one(
        &self,
        channel: &Channel,
        event: &Event,
    ) -> lapin::Result<impl Future<Output = lapin::Result<Confirmation>>> {
        let kind = format!("session.{}", event.name);
        // The group last, so that the broker's topic permissions can part tenants.
        let routing_key = format!("{kind}.{}", event.group_id);
        let properties = BasicProperties::default()
            .with_message_id(event.uid.to_string().into())
            .with_type(kind.into())
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_timestamp(u64::try_from(event.at.unix_timestamp()).unwrap_or_default());
        let options = BasicPublishOptions::default();
        let exchange = self.names.events.as_str().into();
        channel.basic_publish(exchange, routing_key.into(), options, &body(event), properties).await
    }
}

fn body(event: &Event) -> Vec<u8> {
    let body = Body {
        session_id: event.session_id,
        groupid: event.group_id,
        message_id: event.message_id.as_deref(),
        session_key: event.session_key.as_deref(),
        status: &event.name,
        at: to_the_second(event.at),
    };
    // A struct of strings and numbers always serializes.
    serde_json::to_vec(&body).unwrap_or_default()
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
        BATCH
    )
    .fetch_all(&mut **transaction)
    .await
}
