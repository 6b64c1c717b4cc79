//! The broker from the outside: taking answers and dead letters, and counting what is left.

use crate::{
    book::{Book, DeadLetter},
    events::Event,
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
use session_invite::queue::{self, Server};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

pub const PREFIX: &str = "soak";
/// Between two tries to connect.
pub const AGAIN: Duration = Duration::from_millis(50);
/// How long the broker may take for anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bound to all events, from before the first.
pub const EVENTS: &str = "soak-upstream-events";

/// What comes to a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Replies,
    DeadLetters,
    Events,
}

/// One of the worker's queues.
pub fn queue(suffix: &str) -> String {
    format!("{PREFIX}.{suffix}")
}

/// A publisher's own queue for replies; the first leaves `reply_to` out, and reads the default one.
pub fn reply_queue(publisher: usize) -> Option<String> {
    (publisher > 0).then(|| format!("{PREFIX}-upstream-{publisher}"))
}

pub async fn connect(url: &str, name: &str) -> Option<Connection> {
    let name = format!("soak {name}");
    let connecting = queue::connect_to(url.parse().ok()?, &name, Server::default());
    timeout(PATIENCE, connecting).await.ok()?.ok()
}

/// Makes a durable quorum queue that outlives its consumer and the broker's restarts.
pub async fn declare(url: &str, queue: &str) -> Option<()> {
    let connection = connect(url, "declare").await?;
    let channel = connection.create_channel().await.ok()?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(queue.into(), durable, arguments).await.ok()?;
    let _ = connection.close(200, "done".into()).await;
    Some(())
}

/// The exchange, as the worker declares it, and a queue that outlives the broker's restarts.
pub async fn bind_events(url: &str) -> Option<()> {
    declare(url, EVENTS).await?;
    let connection = connect(url, "events").await?;
    let channel = connection.create_channel().await.ok()?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let exchange = queue("events");
    let exchange = exchange.as_str();
    channel
        .exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default())
        .await
        .ok()?;
    let (bound, key) = (QueueBindOptions::default(), "session.#".into());
    channel.queue_bind(EVENTS.into(), exchange.into(), key, bound, FieldTable::default()).await.ok()?;
    let _ = connection.close(200, "done".into()).await;
    Some(())
}

/// Takes what comes to a queue into the book, for as long as the driver lives.
pub async fn follow(url: String, queue: String, what: What, book: Arc<Book>) {
    loop {
        // An error is a lost connection: what was not acknowledged comes again.
        let _ = follow_once(&url, &queue, what, &book).await;
        sleep(AGAIN).await;
    }
}

async fn follow_once(url: &str, queue: &str, what: What, book: &Book) -> Option<()> {
    let connection = connect(url, "answers").await?;
    let channel = timeout(PATIENCE, connection.create_channel()).await.ok()?.ok()?;
    let consuming =
        channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut deliveries = timeout(PATIENCE, consuming).await.ok()?.ok()?;
    while let Some(Ok(delivery)) = deliveries.next().await {
        note(&delivery, what, book);
        // On a dying connection an acknowledgement may never end.
        timeout(PATIENCE, delivery.acker.ack(BasicAckOptions::default())).await.ok()?.ok()?;
    }
    None
}

fn note(delivery: &Delivery, what: What, book: &Book) {
    if what == What::Events {
        return match Event::read(&delivery.data) {
            Some(event) => book.event(event),
            None => book.complain("an event that cannot be read"),
        };
    }
    let correlation =
        delivery.properties.correlation_id().as_ref().map(ToString::to_string).unwrap_or_default();
    if what == What::Replies {
        return book.heard(&correlation, delivery.data.clone(), false);
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
        book.heard(&correlation, delivery.data.clone(), true);
    }
    book.dead_letter(letter);
}

/// Messages that wait in a queue of the worker's; `None` when the broker does not say.
pub async fn depth(channel: &Channel, suffix: &str) -> Option<u32> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(queue(suffix).into(), passive, FieldTable::default());
    Some(timeout(PATIENCE, asked).await.ok()?.ok()?.message_count())
}

/// The same of several queues, by one connection.
pub async fn depths(url: &str, suffixes: &[&'static str]) -> Option<Vec<(&'static str, u32)>> {
    let connection = connect(url, "depths").await?;
    let channel = timeout(PATIENCE, connection.create_channel()).await.ok()?.ok()?;
    let mut found = Vec::new();
    for suffix in suffixes {
        found.push((*suffix, depth(&channel, suffix).await?));
    }
    let _ = connection.close(200, "done".into()).await;
    Some(found)
}
