//! The queues and the exchange of events (contract, sections 9 and 13), declared idempotently.

use super::{
    connection::{
        ACCESS_REFUSED, BrokerConnection, BrokerError, PRECONDITION_FAILED, close_connection, is_missing,
        is_queue_down, on_answering_node, reply_code,
    },
    metrics,
};
use crate::config::BrokerConfig;
use lapin::{
    Channel, Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use std::{sync::Once, time::Duration};

/// Deliveries of one message before the broker itself drops it. Our own limit is lower.
const DELIVERY_LIMIT: i64 = 100;
/// Markers that are kept: several workers may publish theirs in another order.
const MARKERS: i64 = 8;
/// The delays of the retry queues, in seconds, ascending. `invite::plan` decides when a try comes; these are the waits that
/// exist for it.
const RETRY_DELAYS: [u32; 4] = [1, 5, 30, 120];

/// The names of one installation's queues, and of its exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueNames {
    /// Invites.
    pub requests: String,
    /// Replies to requests without a `reply_to`.
    pub replies: String,
    /// What the broker dropped from the requests: expired ones, and those over the delivery limit.
    pub dropped: String,
    /// Dead letters, for an operator.
    pub dead: String,
    /// Messages that the AMQP client cannot decode.
    pub unreadable: String,
    /// The last marker of the database.
    pub marker: String,
    /// The topic exchange for events of sessions.
    pub events: String,
    /// With their delays in seconds.
    pub retries: Vec<(u32, String)>,
}

impl QueueNames {
    /// The names with this prefix, which is `QUEUE_PREFIX`.
    pub fn new(prefix: &str) -> Self {
        let name = |suffix: &str| format!("{prefix}.{suffix}");
        Self {
            requests: name("requests"),
            replies: name("replies"),
            dropped: name("dropped"),
            dead: name("dead"),
            unreadable: name("unreadable"),
            marker: name("marker"),
            events: name("events"),
            retries: RETRY_DELAYS.map(|delay| (delay, name(&format!("retry.{delay}s")))).to_vec(),
        }
    }

    /// Whether the queue is one of the worker's own, to which no reply may go. The replies queue is not among them.
    pub fn is_reserved(&self, queue: &str) -> bool {
        [&self.requests, &self.dropped, &self.dead, &self.unreadable, &self.marker]
            .into_iter()
            .any(|own| own == queue)
            || self.retries.iter().any(|(_, own)| own == queue)
    }

    /// The retry queue with the longest delay that is not longer than `after` plus a quarter of it, a second at most; else the
    /// one with the shortest. A copy that is delivered too early waits for the rest in another round.
    pub fn retry_for(&self, after: Duration) -> &str {
        let after = after.as_secs_f64();
        let fits =
            self.retries.iter().rev().find(|(delay, _)| f64::from(*delay) <= after + (after / 4.0).min(1.0));
        // The first is the shortest.
        fits.or(self.retries.first()).map_or(&self.requests, |(_, name)| name)
    }

    /// The queues that `/metrics` shows, by the ends of their names.
    pub(super) fn measured(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let fixed = [&self.requests, &self.replies, &self.dropped, &self.dead, &self.unreadable];
        let names = fixed.into_iter().chain(self.retries.iter().map(|(_, name)| name));
        metrics::QUEUES.iter().copied().zip(names.map(String::as_str))
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        let fixed =
            [&self.requests, &self.replies, &self.dropped, &self.dead, &self.unreadable, &self.marker];
        fixed.into_iter().chain(self.retries.iter().map(|(_, name)| name))
    }

    /// Each queue with its arguments, beside `x-queue-type`.
    fn arguments(&self) -> Vec<(&str, FieldTable)> {
        let dead_letters_to = |queue: &str| {
            let mut table = FieldTable::default();
            table.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
            table.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(queue.into()));
            table.insert("x-dead-letter-strategy".into(), AMQPValue::LongString("at-least-once".into()));
            table.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
            table
        };
        let limited = |mut table: FieldTable| {
            table.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
            table
        };
        let last_few = || {
            let mut table = FieldTable::default();
            table.insert("x-max-length".into(), AMQPValue::LongLongInt(MARKERS));
            // Each read returns the message to the queue, and RabbitMQ 4 would drop it at the 21st.
            table.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(1_000_000));
            table
        };
        let mut queues = vec![
            (self.unreadable.as_str(), FieldTable::default()),
            (&self.dead, FieldTable::default()),
            (&self.replies, FieldTable::default()),
            (&self.dropped, limited(dead_letters_to(&self.unreadable))),
            (&self.requests, limited(dead_letters_to(&self.dropped))),
            (&self.marker, last_few()),
        ];
        for (delay, name) in &self.retries {
            let mut table = dead_letters_to(&self.requests);
            table.insert("x-message-ttl".into(), AMQPValue::LongLongInt(i64::from(*delay) * 1_000));
            queues.push((name, table));
        }
        queues
    }
}

/// Declares every queue, and the exchange of events. Without the permission to declare one, it is enough that it exists.
///
/// # Errors
///
/// A queue exists with other arguments: the error has the broker's message, which names both.
pub(crate) async fn declare(connection: &Connection, names: &QueueNames) -> Result<(), BrokerError> {
    let mut channel = connection.create_channel().await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    for (queue, mut arguments) in names.arguments() {
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        if let Err(error) = channel.queue_declare(queue.into(), durable, arguments).await {
            // The error has closed the channel.
            channel = connection.create_channel().await?;
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let checking = channel.queue_declare(queue.into(), passive, FieldTable::default());
            match allow_existing(queue, error, checking).await {
                // An operator who declares the queues may not know of this one yet. Without it the worker works, but does not
                // notice a loss of rows.
                Err(BrokerError::Permission { why, .. }) if queue == names.marker => {
                    warn_without_marker(queue, &why);
                    channel = connection.create_channel().await?;
                }
                allowed => allowed?,
            }
        }
    }
    close(&channel).await;
    declare_events(connection, names).await
}

/// Logs once that the queue of the marker is missing and may not be declared.
fn warn_without_marker(queue: &str, why: &str) {
    static LOGGED: Once = Once::new();
    LOGGED.call_once(|| {
        tracing::warn!(
            queue,
            why,
            "this queue is missing and may not be declared: a database that loses rows is not noticed without it"
        );
    });
}

/// Waits until the channel is closed: to close the connection in the meantime would be an error.
async fn close(channel: &Channel) {
    let _ = channel.close(200, "done".into()).await;
}

/// Whether the exchange of events exists.
pub(super) async fn has_events(connection: &Connection, names: &QueueNames) -> Result<bool, BrokerError> {
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let channel = connection.create_channel().await?;
    let (events, topic) = (names.events.as_str().into(), ExchangeKind::Topic);
    match channel.exchange_declare(events, topic, passive, FieldTable::default()).await {
        Ok(()) => {
            close(&channel).await;
            Ok(true)
        }
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Declares the exchange of events. One that exists with another type is an error that names it.
pub(super) async fn declare_events(connection: &Connection, names: &QueueNames) -> Result<(), BrokerError> {
    let events = names.events.as_str();
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let mut channel = connection.create_channel().await?;
    let declaring =
        channel.exchange_declare(events.into(), ExchangeKind::Topic, durable, FieldTable::default());
    if let Err(error) = declaring.await {
        channel = connection.create_channel().await?;
        let passive = ExchangeDeclareOptions { passive: true, ..durable };
        let checking =
            channel.exchange_declare(events.into(), ExchangeKind::Topic, passive, FieldTable::default());
        allow_existing(events, error, checking).await?;
    }
    close(&channel).await;
    Ok(())
}

/// Ignores the error of a declaration if only the permission is missing, and `checking` finds that the queue or the exchange
/// exists.
async fn allow_existing<T>(
    name: &str,
    error: lapin::Error,
    checking: impl Future<Output = lapin::Result<T>>,
) -> Result<(), BrokerError> {
    if reply_code(&error) != Some(ACCESS_REFUSED) {
        return Err(BrokerError::of_declaring(name, error));
    }
    match checking.await {
        Ok(_) => Ok(()),
        Err(missing) if is_missing(&missing) => Err(BrokerError::of_declaring(name, error)),
        Err(other) => Err(other.into()),
    }
}

/// The number of messages that wait in the queue.
pub(super) async fn backlog(channel: &Channel, queue: &str) -> Result<u32, BrokerError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(queue.into(), passive, FieldTable::default()).await {
        Ok(there) => Ok(there.message_count()),
        Err(error) if is_missing(&error) => Err(BrokerError::MissingQueue(queue.to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// Connects, and checks that the queue of requests exists. Declares nothing.
pub(crate) async fn check_requests_queue(config: &BrokerConfig) -> Result<(), BrokerError> {
    let names = QueueNames::new(&config.queue_prefix);
    let checking = async |open: &BrokerConnection| {
        let channel = open.connection.create_channel().await?;
        backlog(&channel, &names.requests).await
    };
    let (open, _) = on_answering_node(config, "gateway's start", checking).await?;
    close_connection(&open.connection).await;
    Ok(())
}

/// One of our queues, and its state at the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueReport {
    pub name: String,
    pub state: QueueState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QueueState {
    Missing,
    Declared {
        messages: u32,
        consumers: u32,
    },
    /// Declared with other arguments. The broker's message says which.
    Differs(String),
    /// It is there, and does not run. The broker's message says why.
    Down(String),
}

/// Reads the state of each queue, and declares no queue.
pub(crate) async fn inspect(
    connection: &Connection,
    names: &QueueNames,
) -> Result<Vec<QueueReport>, BrokerError> {
    let mut states = Vec::new();
    for (queue, mut arguments) in names.arguments() {
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        // A refusal closes the channel: each queue has its own.
        let channel = connection.create_channel().await?;
        let passive = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        let state = match channel.queue_declare(queue.into(), passive, FieldTable::default()).await {
            Ok(there) => {
                let (messages, consumers) = (there.message_count(), there.consumer_count());
                // It exists, so this declaration changes nothing; the broker refuses it if the arguments differ.
                let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
                match channel.queue_declare(queue.into(), durable, arguments).await {
                    Err(error) if reply_code(&error) == Some(PRECONDITION_FAILED) => {
                        QueueState::Differs(error.to_string())
                    }
                    _ => QueueState::Declared { messages, consumers },
                }
            }
            Err(error) if is_missing(&error) => QueueState::Missing,
            Err(error) if is_queue_down(&error) => QueueState::Down(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        states.push(QueueReport { name: queue.to_owned(), state });
    }
    Ok(states)
}

/// Deletes every queue of the installation, with all messages in them, and the exchange.
pub(crate) async fn delete(connection: &Connection, names: &QueueNames) -> Result<(), BrokerError> {
    let channel = connection.create_channel().await?;
    for queue in names.all() {
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    }
    channel.exchange_delete(names.events.as_str().into(), ExchangeDeleteOptions::default()).await?;
    close(&channel).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_queues_have_the_ends_of_their_names_as_labels() {
        let names = QueueNames::new("a.b");
        let measured: Vec<_> = names.measured().collect();
        assert_eq!(measured.len(), metrics::QUEUES.len());
        for (label, name) in measured {
            assert_eq!(name, format!("a.b.{label}"));
        }
    }

    #[test]
    fn a_retry_takes_the_nearest_delay_and_a_long_one_several_in_turn() {
        let names = QueueNames::new("x");
        for (millis, queue) in [
            (0, "x.retry.1s"),
            (900, "x.retry.1s"),
            (3_900, "x.retry.1s"),
            (4_100, "x.retry.5s"),
            (6_000, "x.retry.5s"),
            (23_000, "x.retry.5s"),
            (28_900, "x.retry.5s"),
            (29_100, "x.retry.30s"),
            (118_000, "x.retry.30s"),
            (119_500, "x.retry.120s"),
            (9_000_000, "x.retry.120s"),
        ] {
            assert_eq!(names.retry_for(Duration::from_millis(millis)), queue, "{millis} ms");
        }
    }

    #[test]
    fn of_the_workers_own_queues_only_the_replies_queue_takes_replies() {
        let names = QueueNames::new("session-invite");
        for own in ["requests", "retry.1s", "retry.120s", "dropped", "dead", "unreadable"] {
            assert!(names.is_reserved(&format!("session-invite.{own}")), "{own}");
        }
        assert!(!names.is_reserved("session-invite.replies") && !names.is_reserved("crm.replies"));
        assert_eq!(names.all().count(), names.arguments().len());
    }
}
