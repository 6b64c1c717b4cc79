//! Events of the worker, as a subscriber to its exchange receives them.

use super::{Reply, World, until};
use futures::StreamExt;
use lapin::{
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

/// One event that was received.
#[derive(Debug, Clone)]
pub struct Event {
    /// The routing key.
    pub key: String,
    pub kind: String,
    pub message_id: String,
    pub traceparent: Option<String>,
    pub body: Value,
}

/// The events that match a routing key, from the time of the subscription on.
pub struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    /// Subscribes with a binding key, such as `session.*.72`.
    pub async fn subscribe(world: &World, binding: &str) -> Self {
        let channel = &world.broker.channel;
        let none = FieldTable::default;
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), exclusive, none()).await.expect("a queue");
        let (queue, exchange) = (queue.name().clone(), world.broker.queue("events"));
        let options = QueueBindOptions::default();
        let bound =
            channel.queue_bind(queue.clone(), exchange.as_str().into(), binding.into(), options, none());
        bound.await.expect("the exchange exists");
        let automatic = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let mut deliveries =
            channel.basic_consume(queue, "".into(), automatic, none()).await.expect("events");
        let received = Arc::default();
        let into: Arc<Mutex<Vec<Event>>> = Arc::clone(&received);
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = deliveries.next().await {
                let text = |text: &Option<_>| text.as_ref().map(ToString::to_string).unwrap_or_default();
                let event = Event {
                    key: delivery.routing_key.to_string(),
                    kind: text(delivery.properties.kind()),
                    message_id: text(delivery.properties.message_id()),
                    traceparent: Reply { bytes: Vec::new(), properties: delivery.properties.clone() }
                        .header("traceparent"),
                    body: serde_json::from_slice(&delivery.data).expect("an event is JSON"),
                };
                into.lock().expect("no reader panics").push(event);
            }
        });
        Self(received)
    }

    /// All events so far.
    pub fn received(&self) -> Vec<Event> {
        self.0.lock().expect("no reader panics").clone()
    }

    /// How many different message ids the events have.
    pub fn count_ids(&self) -> usize {
        self.received().into_iter().map(|event| event.message_id).collect::<BTreeSet<_>>().len()
    }

    /// Waits for so many events.
    pub async fn until_received(&self, count: usize) {
        until(&format!("{count} events are received"), || async {
            (self.received().len() >= count).then_some(())
        })
        .await;
    }

    /// Waits for as many events as there are keys, and asserts that these are their routing keys, in this order.
    pub async fn until_keys_are(&self, keys: &[&str]) {
        self.until_received(keys.len()).await;
        let received: Vec<_> = self.received().into_iter().map(|event| event.key).collect();
        assert_eq!(received, keys);
    }
}
