//! Publishes the outbox: the rows that `sessions` wrote into `events` go to the topic exchange `QUEUE_PREFIX.events`, and
//! are deleted once the broker has confirmed them. So each event is published at least once. The events of one session are
//! published in their order: one worker at a time publishes, under a lock that Postgres frees if the worker dies.

use super::{
    Cause, QueueNames,
    connection::{
        BrokerConnection, BrokerError, BrokerPermission, connect_to_some_node, node_answers_within,
    },
    metrics, nodes, topology,
};
use crate::{
    backoff::Backoff,
    config::BrokerConfig,
    db::{self, StatementError},
    invite::reply::to_the_second,
    sessions::{EVENTS_IN_A_BATCH, Outbox, SessionEvent},
    supervise::{Pulse, Task, keep_running},
    traceparent::TraceParent,
};
use futures::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use serde::Serialize;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often the outbox is read while it is empty.
const POLL_EVERY: Duration = Duration::from_millis(200);
/// How long a channel may take to open.
const OPENS_WITHIN: Duration = Duration::from_secs(15);
/// How long the broker may take to confirm a batch. lapin never completes a call on a lost connection.
const CONFIRMS_WITHIN: Duration = Duration::from_secs(10);
/// An idle connection to the broker is closed after this time.
const IDLE_AT_MOST: Duration = Duration::from_mins(5);
/// An exchange that was gone is reported for so long, if no queue gets events from it.
const UNBOUND_FOR: Duration = Duration::from_hours(1);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventBody<'a> {
    session_id: Uuid,
    groupid: i64,
    message_id: Option<&'a str>,
    session_key: Option<&'a str>,
    status: &'a str,
    at: String,
}

#[derive(Debug, thiserror::Error)]
enum EventError {
    #[error("{}", .0.summary())]
    Database(#[from] db::Error),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("the broker did not take an event")]
    NotTaken,
    #[error("the broker did not confirm")]
    Unconfirmed,
}

/// Publishes the rows of the outbox.
#[derive(Debug)]
pub(crate) struct EventPublisher {
    outbox: Outbox,
    config: BrokerConfig,
    names: QueueNames,
    /// Why the broker takes no events.
    problem: Arc<Cause>,
    /// Set once the exchange was gone and declared again, until a queue gets events from it, or for [`UNBOUND_FOR`].
    unbound: Arc<Cause>,
    unbound_since: Mutex<Option<Instant>>,
}

/// The result of one round.
enum EventRound {
    /// The number of events that were published; 0 if the outbox is empty.
    Published(usize),
    /// Another worker publishes now.
    OtherWorker,
}

/// A connection to the broker, which is open only while there are events.
struct EventConnection {
    connection: Connection,
    node: String,
    channel: Channel,
    last_used: tokio::time::Instant,
}

impl EventPublisher {
    /// `problem` is set to the reason while the broker takes no events, and `unbound` to what is known of an exchange that was
    /// gone.
    pub(crate) fn new(
        outbox: Outbox,
        config: BrokerConfig,
        problem: Arc<Cause>,
        unbound: Arc<Cause>,
    ) -> Self {
        let names = QueueNames::new(&config.queue_prefix);
        Self { outbox, config, names, problem, unbound, unbound_since: Mutex::default() }
    }

    /// Publishes until `stop`. An event that cannot be published stays in the outbox for a later try. No invite waits for it.
    pub(crate) fn start(self, stop: CancellationToken) {
        let events = Arc::new(self);
        keep_running(Task::Events, stop.clone(), move |pulse| events.clone().run(stop.clone(), pulse));
    }

    async fn run(self: Arc<Self>, stop: CancellationToken, pulse: Pulse) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let (mut connection, mut logged) = (None, String::new());
        loop {
            pulse.step("publishing events from the outbox");
            let Some(round) = stop.run_until_cancelled(self.round(&mut connection)).await else { break };
            pulse.idle();
            match round {
                Ok(round) => {
                    // A round of another worker proves nothing about the broker.
                    if let EventRound::Published(_) = round {
                        self.problem.set(None);
                        if !std::mem::take(&mut logged).is_empty() {
                            tracing::info!("events are published again");
                        }
                    }
                    backoff.reset();
                    if !matches!(round, EventRound::Published(EVENTS_IN_A_BATCH..)) {
                        let pause = POLL_EVERY.mul_f64(rand::random_range(0.8..1.2));
                        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    }
                }
                Err(error) => {
                    connection = None;
                    let why = error.to_string();
                    // The database has its own part of readiness.
                    if !matches!(error, EventError::Database(_)) {
                        self.problem.set(Some(why.clone()));
                    }
                    if logged != why {
                        tracing::warn!(%error, "events cannot be published; trying again until it works");
                        logged = why;
                    }
                    stop.run_until_cancelled(backoff.wait()).await;
                }
            }
        }
        if let Some(EventConnection { connection, .. }) = connection {
            let closing = connection.close(200, "done".into());
            let _ = tokio::time::timeout(Duration::from_secs(1), closing).await;
        }
    }

    /// Publishes one batch, if there is one and no other worker publishes.
    async fn round(&self, connection: &mut Option<EventConnection>) -> Result<EventRound, EventError> {
        // Where there are no subscribers, every event is returned.
        if self.unbound_since().is_some_and(|since| since.elapsed() > UNBOUND_FOR) {
            self.set_unbound(false);
        }
        if self.outbox.is_empty().await? {
            if connection.as_ref().is_some_and(|open| open.last_used.elapsed() > IDLE_AT_MOST) {
                *connection = None;
            }
            return Ok(EventRound::Published(0));
        }
        let open = match connection.take().filter(|open| open.channel.status().connected()) {
            Some(open) => connection.insert(open),
            None => connection.insert(self.open().await?),
        };
        let Some(batch) = self.outbox.take().await? else { return Ok(EventRound::OtherWorker) };
        if let Err(error) = self.publish(&open.channel, batch.events()).await {
            match &error {
                EventError::Unconfirmed => nodes::silent(&open.node, "it does not confirm what is published"),
                _ => nodes::lost(&open.node),
            }
            return Err(error);
        }
        nodes::works(&open.node);
        open.last_used = tokio::time::Instant::now();
        let events = batch.delete().await?;
        for event in &events {
            metrics::event_published(&event.name);
        }
        Ok(EventRound::Published(events.len()))
    }

    async fn open(&self) -> Result<EventConnection, BrokerError> {
        let BrokerConnection { connection, node, .. } = connect_to_some_node(&self.config, "events").await?;
        // Limits the time: lapin never completes a call on a lost connection.
        let limit = node_answers_within(&self.config).unwrap_or(OPENS_WITHIN);
        let opened = tokio::time::timeout(limit, self.open_channel(&connection)).await;
        let channel = opened
            .unwrap_or_else(|_| Err(BrokerError::lost("it takes too long to open a channel")))
            .inspect_err(|_| nodes::lost(&node))?;
        Ok(EventConnection { connection, node, channel, last_used: tokio::time::Instant::now() })
    }

    async fn open_channel(&self, connection: &Connection) -> Result<Channel, BrokerError> {
        // An operator may have deleted the exchange, and its bindings with it.
        let was_gone = !topology::has_events(connection, &self.names).await?;
        topology::declare_events(connection, &self.names).await?;
        if was_gone {
            self.set_unbound(true);
            tracing::warn!(
                exchange = self.names.events,
                "the exchange of events was gone; its subscribers have to bind to it again"
            );
        }
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    async fn publish(&self, channel: &Channel, events: &[SessionEvent]) -> Result<(), EventError> {
        let publishing = async {
            let confirms = events.iter().map(|event| self.publish_one(channel, event));
            let confirmed = try_join_all(try_join_all(confirms).await?).await?;
            self.note_returns(&confirmed);
            Ok::<_, lapin::Error>(confirmed.iter().all(Confirmation::is_ack))
        };
        let limit = node_answers_within(&self.config).unwrap_or(CONFIRMS_WITHIN);
        match tokio::time::timeout(limit, publishing).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(EventError::NotTaken),
            Err(_) => Err(EventError::Unconfirmed),
            Ok(Err(error)) => {
                Err(EventError::Broker(BrokerError::of(BrokerPermission::Write, &self.names.events, error)))
            }
        }
    }

    /// After the exchange was gone: an event that the broker does not return has reached a queue, so subscribers are back.
    fn note_returns(&self, confirmed: &[Confirmation]) {
        let is_returned = |confirm: &&Confirmation| {
            matches!(confirm, Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)))
        };
        let returned = confirmed.iter().filter(is_returned).count();
        if self.is_mandatory() && returned < confirmed.len() {
            self.set_unbound(false);
        }
    }

    fn set_unbound(&self, is_unbound: bool) {
        self.unbound.set(is_unbound.then(|| unbound(&self.names.events)));
        *self.unbound_since() = is_unbound.then(Instant::now);
    }

    fn unbound_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.unbound_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker drops an event for which no queue is bound, unless it is `mandatory`: then it returns it.
    fn is_mandatory(&self) -> bool {
        self.unbound_since().is_some()
    }

    async fn publish_one(
        &self,
        channel: &Channel,
        event: &SessionEvent,
    ) -> lapin::Result<impl Future<Output = lapin::Result<Confirmation>>> {
        let kind = format!("session.{}", event.name);
        // The group comes last, so that the broker's topic permissions can separate tenants.
        let routing_key = format!("{kind}.{}", event.group_id);
        let properties = BasicProperties::default()
            .with_message_id(event.uid.to_string().into())
            .with_type(kind.into())
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_timestamp(u64::try_from(event.at.unix_timestamp()).unwrap_or_default())
            .with_headers(headers(event));
        let options =
            BasicPublishOptions { mandatory: self.is_mandatory(), ..BasicPublishOptions::default() };
        let exchange = self.names.events.as_str().into();
        channel.basic_publish(exchange, routing_key.into(), options, &body(event), properties).await
    }
}

/// What to say of an exchange that was gone.
fn unbound(exchange: &str) -> String {
    let at = to_the_second(time::OffsetDateTime::now_utc());
    format!(
        "the exchange {exchange} was gone, and was declared again at {at}: no queue has got an event since, as its bindings went \
         with it. Events are lost to their subscribers meanwhile. What to do: let each subscriber bind its queue again; this shows \
         who is bound: rabbitmqctl list_bindings source_name destination_name routing_key | grep {exchange}"
    )
}

/// The trace of the event's invite goes on.
fn headers(event: &SessionEvent) -> FieldTable {
    let mut headers = FieldTable::default();
    if let Some(trace) = event.traceparent.as_deref().and_then(TraceParent::parse) {
        let trace = trace.child().to_string();
        headers.insert("traceparent".into(), AMQPValue::LongString(trace.into()));
    }
    headers
}

fn body(event: &SessionEvent) -> Vec<u8> {
    let body = EventBody {
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
