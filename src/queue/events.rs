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
    db::{self, Passing},
    invite::reply::to_the_second,
    sessions::{EVENTS_IN_A_BATCH, Event, Outbox},
    supervise::{Pulse, Task, keep_up},
};
use futures::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often the outbox is looked at while it is empty.
const EVERY: Duration = Duration::from_millis(200);
/// How long a connection and its channel may take.
const OPENS_WITHIN: Duration = Duration::from_secs(15);
/// How long the broker may take to confirm a batch. The client never ends what it waits for on a line that is lost.
const CONFIRMS_WITHIN: Duration = Duration::from_secs(10);
/// An idle connection to the broker is closed after so long.
const IDLE_AT_MOST: Duration = Duration::from_mins(5);
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
    Database(#[from] db::Error),
    #[error(transparent)]
    Broker(#[from] Unusable),
    #[error("the broker did not confirm")]
    Unconfirmed,
}

/// Publishes what comes into the outbox.
#[derive(Debug)]
pub struct Events {
    outbox: Outbox,
    config: BrokerConfig,
    names: Names,
    /// Why the broker takes none.
    problem: Arc<Cause>,
}

/// What a step has come to.
enum Step {
    /// So many were published; none if there are none.
    Published(usize),
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
    pub fn new(outbox: Outbox, config: BrokerConfig, problem: Arc<Cause>) -> Self {
        let names = Names::new(&config.queue_prefix);
        Self { outbox, config, names, problem }
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
                        self.problem.set(None);
                        if !std::mem::take(&mut told).is_empty() {
                            tracing::info!("events are published again");
                        }
                    }
                    backoff.reset();
                    if !matches!(step, Step::Published(EVENTS_IN_A_BATCH..)) {
                        let pause = EVERY.mul_f64(rand::random_range(0.8..1.2));
                        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    }
                }
                Err(error) => {
                    line = None;
                    let why = error.to_string();
                    // What the database refuses is told by its own part of readiness.
                    if !matches!(error, Failure::Database(_)) {
                        self.problem.set(Some(why.clone()));
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
        if self.outbox.is_empty().await? {
            if line.as_ref().is_some_and(|line| line.used.elapsed() > IDLE_AT_MOST) {
                *line = None;
            }
            return Ok(Step::Published(0));
        }
        let open = match line.take().filter(|line| line.channel.status().connected()) {
            Some(open) => line.insert(open),
            None => line.insert(self.open().await?),
        };
        let Some(batch) = self.outbox.take().await? else { return Ok(Step::Elsewhere) };
        self.publish(&open.channel, batch.events()).await?;
        open.used = tokio::time::Instant::now();
        let events = batch.delete().await?;
        for event in &events {
            metrics::event_published(&event.name);
        }
        Ok(Step::Published(events.len()))
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
