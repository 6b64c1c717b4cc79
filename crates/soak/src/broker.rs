//! Connections and queues of the soak itself: it receives replies, dead letters and events, and counts remaining messages.

use crate::{
    journal::{DeadLetter, Journal},
    nodes,
    session_events::SessionEvent,
};
use futures::StreamExt;
use lapin::{
    Channel, Connection, ExchangeKind,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use rand::seq::SliceRandom;
use session_invite::internals::{BrokerVersion, connect_to_node};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

pub(crate) const PREFIX: &str = "soak";
/// Between two tries to connect or to publish.
pub(crate) const RETRY_DELAY: Duration = Duration::from_millis(50);
/// How long the broker may take for any request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// After this long without a message, a connection that receives messages is replaced.
pub(crate) const IDLE: Duration = Duration::from_secs(5);

/// The queue for all events. It is bound before the first one.
pub(crate) const EVENTS_QUEUE: &str = "soak-upstream-events";

/// The content of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueContent {
    Replies,
    DeadLetters,
    Events,
}

/// The name of one of the worker's queues.
pub(crate) fn queue(suffix: &str) -> String {
    format!("{PREFIX}.{suffix}")
}

/// A publisher's queue for replies. The first publisher sets no `reply_to`, and reads the default queue.
pub(crate) fn reply_queue(publisher: usize) -> Option<String> {
    (publisher > 0).then(|| format!("{PREFIX}-upstream-{publisher}"))
}

/// Connects to a node, chosen at random from those that answer.
pub(crate) async fn connect(url: &str, name: &str) -> Option<Connection> {
    let name = format!("soak {name}");
    let mut urls = nodes::broker_urls(url);
    urls.shuffle(&mut rand::rng());
    for url in urls {
        let connecting = connect_to_node(url.parse().ok()?, &name, BrokerVersion::default());
        if let Ok(Ok(connection)) = timeout(TIMEOUT, connecting).await {
            return Some(connection);
        }
    }
    None
}

/// Declares a durable quorum queue, which outlives its consumer and the broker's restarts.
pub(crate) async fn declare(url: &str, queue: &str) -> Option<()> {
    let connection = connect(url, "declare").await?;
    let channel = connection.create_channel().await.ok()?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(queue.into(), durable, arguments).await.ok()?;
    let _ = connection.close(200, "done".into()).await;
    Some(())
}

/// Declares the worker's exchange of events, and a durable queue for it.
pub(crate) async fn bind_events(url: &str) -> Option<()> {
    declare(url, EVENTS_QUEUE).await?;
    let connection = connect(url, "events").await?;
    let channel = connection.create_channel().await.ok()?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let exchange = queue("events");
    let exchange = exchange.as_str();
    channel
        .exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default())
        .await
        .ok()?;
    let (options, key) = (QueueBindOptions::default(), "session.#".into());
    channel
        .queue_bind(EVENTS_QUEUE.into(), exchange.into(), key, options, FieldTable::default())
        .await
        .ok()?;
    let _ = connection.close(200, "done".into()).await;
    Some(())
}

/// Notes all messages of a queue in the journal. It never ends.
pub(crate) async fn follow(url: String, queue: String, content: QueueContent, journal: Arc<Journal>) {
    loop {
        // It ends when the connection fails. The broker then delivers unacknowledged messages again.
        let _ = follow_once(&url, &queue, content, &journal).await;
        sleep(RETRY_DELAY).await;
    }
}

async fn follow_once(url: &str, queue: &str, content: QueueContent, journal: &Journal) -> Option<()> {
    let connection = connect(url, "answers").await?;
    let ended = receive(&connection, queue, content, journal).await;
    // A connection that is only dropped may live on, and keep its deliveries.
    let _ = timeout(TIMEOUT, connection.close(200, "over".into())).await;
    ended
}

/// Receives until nothing more comes.
async fn receive(
    connection: &Connection,
    queue: &str,
    content: QueueContent,
    journal: &Journal,
) -> Option<()> {
    let channel = timeout(TIMEOUT, connection.create_channel()).await.ok()?.ok()?;
    let consuming =
        channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut deliveries = timeout(TIMEOUT, consuming).await.ok()?.ok()?;
    // A delivery can be lost when the queue's leader dies. It comes again once this connection is closed.
    while let Ok(Some(Ok(delivery))) = timeout(IDLE, deliveries.next()).await {
        note(&delivery, content, journal);
        // On a failing connection an acknowledgement may never complete.
        timeout(TIMEOUT, delivery.acker.ack(BasicAckOptions::default())).await.ok()?.ok()?;
    }
    None
}

fn note(delivery: &Delivery, content: QueueContent, journal: &Journal) {
    if content == QueueContent::Events {
        return match SessionEvent::parse(&delivery.data, delivery.redelivered) {
            Some(event) => journal.note_event(event),
            None => journal.complain("an event that cannot be read"),
        };
    }
    let correlation =
        delivery.properties.correlation_id().as_ref().map(ToString::to_string).unwrap_or_default();
    if content == QueueContent::Replies {
        return journal.note_reply(&correlation, delivery.data.clone(), false);
    }
    let header = |name: &str| match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    };
    let letter = DeadLetter {
        kind: header("x-kind").unwrap_or_default(),
        reason: header("x-reason").unwrap_or_default(),
        correlation: correlation.clone(),
    };
    if letter.kind == "reply" {
        journal.note_reply(&correlation, delivery.data.clone(), true);
    }
    journal.note_dead_letter(letter);
}

/// The number of messages in one of the worker's queues. `None` if the broker does not answer.
pub(crate) async fn depth(channel: &Channel, suffix: &str) -> Option<u32> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue(suffix).into(), passive, FieldTable::default());
    Some(timeout(TIMEOUT, declared).await.ok()?.ok()?.message_count())
}

/// The same for several queues, over one connection.
pub(crate) async fn depths(url: &str, suffixes: &[&'static str]) -> Option<Vec<(&'static str, u32)>> {
    let connection = connect(url, "depths").await?;
    let channel = timeout(TIMEOUT, connection.create_channel()).await.ok()?.ok()?;
    let mut depths = Vec::new();
    for suffix in suffixes {
        depths.push((*suffix, depth(&channel, suffix).await?));
    }
    let _ = connection.close(200, "done".into()).await;
    Some(depths)
}
