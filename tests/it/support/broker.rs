//! The broker, as an upstream system sees it: it publishes requests and takes replies.

use super::{DEADLINE, Message, Reply, block_on, until, until_within};
use futures::StreamExt;
use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};
use std::{
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use test_support::services;

/// Queues that have to be empty when a test ends.
const EMPTY_AT_THE_END: [&str; 8] =
    ["requests", "retry.1s", "retry.5s", "retry.30s", "retry.120s", "dropped", "dead", "unreadable"];

/// Queues under a prefix of their own. They are deleted when this is dropped.
pub struct Broker {
    pub prefix: String,
    pub channel: Channel,
    /// An upstream system's own queue for replies.
    pub reply_queue: String,
    replies: Arc<Mutex<Vec<Reply>>>,
    connection: Connection,
}

/// The URL of the broker on which the tests declare their queues.
pub fn server() -> String {
    services::url("AMQP_URL")
}

/// `rabbitmqctl` for that broker. `./dev test` sets RABBITMQCTL when it starts a broker of its own.
pub fn command() -> Command {
    Command::new(std::env::var("RABBITMQCTL").unwrap_or_else(|_| "rabbitmqctl".to_owned()))
}

/// A connection of the test's own.
#[expect(clippy::disallowed_methods, reason = "a test connects as another system does")]
pub async fn connect() -> Connection {
    let properties = ConnectionProperties::default().with_connection_name("session-invite tests".into());
    Connection::connect(&server(), properties).await.expect("RabbitMQ is reached")
}

impl Broker {
    pub async fn connect(prefix: &str) -> Self {
        let connection = connect().await;
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let reply_queue = format!("{prefix}.upstream");
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        channel
            .queue_declare(reply_queue.as_str().into(), exclusive, FieldTable::default())
            .await
            .expect("a queue for replies");
        let replies = Arc::default();
        collect(&channel, &reply_queue, Arc::clone(&replies)).await;
        Self { prefix: prefix.to_owned(), channel, reply_queue, replies, connection }
    }

    /// The whole name of one of the worker's queues.
    pub fn queue(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.prefix)
    }

    /// Publishes a request unchanged, and waits for the broker's confirm.
    pub async fn publish(&self, message: Message) {
        self.publish_to(&self.queue("requests"), message).await;
    }

    pub async fn publish_to(&self, queue: &str, Message { body, properties }: Message) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = self.channel.basic_publish("".into(), queue.into(), options, &body, properties).await;
        let confirmed = confirm.expect("the broker takes a message").await.expect("the broker confirms");
        assert!(confirmed.is_ack(), "{queue} takes the message");
        assert!(confirmed.take_message().is_none(), "{queue} exists");
    }

    /// Publishes a request whose `reply_to` is the upstream system's queue.
    pub async fn request(&self, message: Message) {
        let here = self.reply_queue.clone();
        self.publish(message.reply_to(&here)).await;
    }

    /// Waits for the next reply with this correlation id.
    pub async fn reply(&self, correlation: &str) -> Reply {
        self.reply_within(DEADLINE, correlation).await
    }

    /// The same, with a deadline of its own.
    pub async fn reply_within(&self, deadline: Duration, correlation: &str) -> Reply {
        until_within(deadline, &format!("the reply to {correlation}"), || async {
            let mut replies = self.replies.lock().expect("no reader panics");
            let found = replies.iter().position(|r| r.correlation().as_deref() == Some(correlation))?;
            Some(replies.remove(found))
        })
        .await
    }

    /// Waits until no message waits in the worker's queues.
    pub async fn until_queues_are_empty(&self) {
        self.until_queues_are_empty_but(&[]).await;
    }

    /// The same, without these queues.
    pub async fn until_queues_are_empty_but(&self, without: &[&str]) {
        until("the queues are empty", || async {
            for suffix in EMPTY_AT_THE_END.iter().filter(|suffix| !without.contains(suffix)) {
                if self.depth(&self.queue(suffix)).await.is_some_and(|count| count > 0) {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    /// The replies that came and that the test has not taken.
    pub fn replies_left(&self) -> Vec<Reply> {
        self.replies.lock().expect("no reader panics").clone()
    }

    /// Waits for a message in one of the worker's queues, and takes it.
    pub async fn take(&self, suffix: &str) -> Reply {
        let queue = self.queue(suffix);
        let taken = BasicGetOptions { no_ack: true };
        until(&format!("a message in {queue}"), || async {
            let got = self.channel.basic_get(queue.as_str().into(), taken).await.expect("the queue exists");
            got.map(|got| Reply { bytes: got.delivery.data, properties: got.delivery.properties })
        })
        .await
    }

    /// The same for a queue that is being declared again. The broker closes the connection that reads from a queue which is
    /// not up yet, so this uses its own connections.
    pub async fn take_declared_again(&self, suffix: &str) -> Reply {
        let queue = self.queue(suffix);
        let begun = Instant::now();
        let mut connection = connect().await;
        let mut channel = connection.create_channel().await.expect("a channel");
        loop {
            match channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await {
                Ok(Some(got)) => {
                    let _ = connection.close(200, "done".into()).await;
                    return Reply { bytes: got.delivery.data, properties: got.delivery.properties };
                }
                Ok(None) => {}
                Err(_) => {
                    connection = connect().await;
                    channel = connection.create_channel().await.expect("a channel");
                }
            }
            assert!(begun.elapsed() < DEADLINE, "a message in {queue}: not within {DEADLINE:?}");
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    /// Takes the next message as a client that dies before its ack. The broker delivers it again, marked as redelivered.
    pub async fn deliver_and_die(&self, suffix: &str) {
        let connection = connect().await;
        let channel = connection.create_channel().await.expect("a channel");
        let queue = self.queue(suffix);
        let unacknowledged = BasicGetOptions::default();
        let got = channel.basic_get(queue.as_str().into(), unacknowledged).await.expect("the queue exists");
        assert!(got.is_some(), "a message waits in {queue}");
        connection.close(200, "died".into()).await.expect("the connection closes");
    }

    /// Publishes a request that the broker delivers to the worker as redelivered.
    pub async fn request_redelivered(&self, message: Message) {
        self.request(message).await;
        self.deliver_and_die("requests").await;
    }

    /// Takes the next message and rejects it with requeue. The broker counts one more delivery.
    pub async fn deliver_and_return(&self, suffix: &str) {
        let queue = self.queue(suffix);
        until(&format!("a message in {queue}"), || async {
            let taken = BasicGetOptions::default();
            let got = self.channel.basic_get(queue.as_str().into(), taken).await.expect("the queue exists");
            let requeue = BasicRejectOptions { requeue: true };
            Some(got?.delivery.acker.reject(requeue).await.expect("a message can be requeued"))
        })
        .await;
    }

    /// A fanout exchange to one of the worker's queues. The broker deletes it with that queue.
    pub async fn fanout_to(&self, suffix: &str) -> String {
        let (exchange, queue) = (self.queue("fanout"), self.queue(suffix));
        let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
        let (fanout, none) = (ExchangeKind::Fanout, FieldTable::default());
        let declared = self.channel.exchange_declare(exchange.as_str().into(), fanout, options, none.clone());
        declared.await.expect("an exchange");
        let (from, to) = (exchange.as_str().into(), queue.as_str().into());
        let bound = self.channel.queue_bind(to, from, "".into(), QueueBindOptions::default(), none);
        bound.await.expect("a binding");
        exchange
    }

    /// Purges one of the worker's queues.
    pub async fn purge(&self, suffix: &str) {
        let queue = self.queue(suffix);
        let purged = self.channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await;
        purged.expect("the queue exists");
    }

    /// Deletes one of the worker's queues while the worker runs.
    pub async fn delete(&self, suffix: &str) {
        let queue = self.queue(suffix);
        let deleted = self.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
        deleted.expect("the queue exists");
    }

    /// Deletes the exchange of events while the worker runs, and its bindings with it.
    pub async fn delete_events(&self) {
        let events = self.queue("events");
        let deleted =
            self.channel.exchange_delete(events.as_str().into(), ExchangeDeleteOptions::default()).await;
        deleted.expect("the exchange exists");
    }

    /// How many messages wait in a queue; `None` if it does not exist.
    pub async fn depth(&self, queue: &str) -> Option<u32> {
        depth(&self.connection, queue).await
    }

    /// Queues that are not empty, after the worker has had ten seconds to acknowledge.
    pub fn leftovers(&self) -> Vec<String> {
        block_on(async {
            let connection = connect().await;
            let mut left = Vec::new();
            for suffix in EMPTY_AT_THE_END {
                let queue = self.queue(suffix);
                let begun = Instant::now();
                while let Some(count @ 1..) = depth(&connection, &queue).await {
                    if begun.elapsed() > Duration::from_secs(10) {
                        left.push(format!("{count} messages are left in {queue}"));
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            left
        })
    }
}

/// Messages that wait in a queue; `None` if it does not exist.
async fn depth(connection: &Connection, queue: &str) -> Option<u32> {
    // A channel of its own: a passive declare of a queue that does not exist closes the channel.
    let channel = connection.create_channel().await.expect("a channel");
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.ok()?;
    let _ = channel.close(200, "done".into()).await;
    Some(declared.message_count())
}

async fn collect(channel: &Channel, queue: &str, into: Arc<Mutex<Vec<Reply>>>) {
    let automatic = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(queue.into(), "".into(), automatic, FieldTable::default()).await;
    let mut replies = consumer.expect("replies can be consumed");
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = replies.next().await {
            let reply = Reply { bytes: delivery.data, properties: delivery.properties };
            into.lock().expect("no reader panics").push(reply);
        }
    });
}

impl Drop for Broker {
    fn drop(&mut self) {
        block_on(async {
            let connection = connect().await;
            let channel = connection.create_channel().await.expect("a channel");
            for suffix in EMPTY_AT_THE_END.into_iter().chain(["replies", "marker"]) {
                let queue = self.queue(suffix);
                let _ = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
            }
            let events = self.queue("events");
            let _ = channel.exchange_delete(events.as_str().into(), ExchangeDeleteOptions::default()).await;
        });
    }
}
