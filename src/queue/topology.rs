//! The queues and the exchange of events (contract, sections 9 and 13), declared idempotently.

use super::connection::{ACCESS_REFUSED, Unusable, connect, reply_code};
use crate::config::BrokerConfig;
use lapin::{
    Channel, Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};

use std::time::Duration;

/// Deliveries of one message before the broker itself drops it; our own count is lower.
const DELIVERY_LIMIT: i64 = 100;
/// The delays of the retry queues, in seconds.
const RETRY_DELAYS: [u32; 4] = [1, 5, 30, 120];

/// The names of one installation's queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub requests: String,
    pub replies: String,
    pub dropped: String,
    pub dead: String,
    pub unreadable: String,
    /// The topic exchange of what becomes of sessions.
    pub events: String,
    /// With their delays in seconds.
    pub retries: Vec<(u32, String)>,
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        let name = |suffix: &str| format!("{prefix}.{suffix}");
        Self {
            requests: name("requests"),
            replies: name("replies"),
            dropped: name("dropped"),
            dead: name("dead"),
            unreadable: name("unreadable"),
            events: name("events"),
            retries: RETRY_DELAYS.map(|delay| (delay, name(&format!("retry.{delay}s")))).to_vec(),
        }
    }

    /// Whether the queue is one of the worker's own, to which no reply may go. The replies queue may be named.
    pub fn is_reserved(&self, queue: &str) -> bool {
        [&self.requests, &self.dropped, &self.dead, &self.unreadable].into_iter().any(|own| own == queue)
            || self.retries.iter().any(|(_, own)| own == queue)
    }

    /// The retry queue whose delay is nearest: longer than `after` by a second at the most. What is left of a longer time is
    /// waited for in another round.
    pub fn retry_for(&self, after: Duration) -> &str {
        let after = after.as_secs_f64();
        let fits =
            self.retries.iter().rev().find(|(delay, _)| f64::from(*delay) <= after + (after / 4.0).min(1.0));
        // The first is the shortest.
        fits.or(self.retries.first()).map_or(&self.requests, |(_, name)| name)
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        let fixed = [&self.requests, &self.replies, &self.dropped, &self.dead, &self.unreadable];
        fixed.into_iter().chain(self.retries.iter().map(|(_, name)| name))
    }

    /// Each queue with what its arguments are beside `x-queue-type`.
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
        let mut queues = vec![
            (self.unreadable.as_str(), FieldTable::default()),
            (&self.dead, FieldTable::default()),
            (&self.replies, FieldTable::default()),
            (&self.dropped, limited(dead_letters_to(&self.unreadable))),
            (&self.requests, limited(dead_letters_to(&self.dropped))),
        ];
        for (delay, name) in &self.retries {
            let mut table = dead_letters_to(&self.requests);
            table.insert("x-message-ttl".into(), AMQPValue::LongLongInt(i64::from(*delay) * 1_000));
            queues.push((name, table));
        }
        queues
    }
}

/// Declares every queue, and the exchange of events. A queue that is there with other arguments is an error that names
/// both, in the broker's words. Without the right to declare one, it will do that it is there.
pub async fn declare(connection: &Connection, names: &Names) -> Result<(), Unusable> {
    let mut channel = connection.create_channel().await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    for (queue, mut arguments) in names.arguments() {
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        if let Err(error) = channel.queue_declare(queue.into(), durable, arguments).await {
            // The error has ended the channel.
            channel = connection.create_channel().await?;
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let looking = channel.queue_declare(queue.into(), passive, FieldTable::default());
            unless_there(queue, error, looking).await?;
        }
    }
    done_with(&channel).await;
    declare_events(connection, names).await
}

/// Waits for its end: a connection that is closed while a channel of it is being closed says so as an error.
async fn done_with(channel: &Channel) {
    let _ = channel.close(200, "done".into()).await;
}

/// Declares the exchange of events; one that is there and of another kind is an error that names it.
pub(super) async fn declare_events(connection: &Connection, names: &Names) -> Result<(), Unusable> {
    let events = names.events.as_str();
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let mut channel = connection.create_channel().await?;
    let declaring =
        channel.exchange_declare(events.into(), ExchangeKind::Topic, durable, FieldTable::default());
    if let Err(error) = declaring.await {
        channel = connection.create_channel().await?;
        let passive = ExchangeDeclareOptions { passive: true, ..durable };
        let looking =
            channel.exchange_declare(events.into(), ExchangeKind::Topic, passive, FieldTable::default());
        unless_there(events, error, looking).await?;
    }
    done_with(&channel).await;
    Ok(())
}

/// What follows from not being able to declare it: nothing, if only the right is missing and it is there already.
async fn unless_there<T>(
    name: &str,
    error: lapin::Error,
    looking: impl Future<Output = lapin::Result<T>>,
) -> Result<(), Unusable> {
    if reply_code(&error) != Some(ACCESS_REFUSED) {
        return Err(Unusable::of_declaring(name, error));
    }
    match looking.await {
        Ok(_) => Ok(()),
        Err(missing) if reply_code(&missing) == Some(404) => Err(Unusable::of_declaring(name, error)),
        Err(other) => Err(other.into()),
    }
}

/// The messages that wait in the queue; an error says who declares it when it is not there.
pub(super) async fn backlog(channel: &Channel, queue: &str) -> Result<u32, Unusable> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(queue.into(), passive, FieldTable::default()).await {
        Ok(there) => Ok(there.message_count()),
        Err(error) if reply_code(&error) == Some(404) => Err(Unusable::NoQueue(queue.to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// Connects, and looks for the queue of requests; declares nothing.
pub async fn look_for_requests(config: &BrokerConfig) -> Result<(), Unusable> {
    let connection = connect(config, "gateway's start").await?;
    let channel = connection.create_channel().await?;
    backlog(&channel, &Names::new(&config.queue_prefix).requests).await?;
    Ok(connection.close(200, "done".into()).await?)
}

/// A queue as it stands at the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueState {
    pub name: String,
    pub standing: Standing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Missing,
    There {
        messages: u32,
        consumers: u32,
    },
    /// Declared with other arguments; in the broker's words.
    Differs(String),
}

/// How each queue stands; nothing is declared that is not there.
pub async fn look(connection: &Connection, names: &Names) -> Result<Vec<QueueState>, Unusable> {
    let mut states = Vec::new();
    for (queue, mut arguments) in names.arguments() {
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        // A refusal ends the channel: each queue has its own.
        let channel = connection.create_channel().await?;
        let passive = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        let standing = match channel.queue_declare(queue.into(), passive, FieldTable::default()).await {
            Ok(there) => {
                let (messages, consumers) = (there.message_count(), there.consumer_count());
                // It is there: the same declaration again changes nothing, and is refused if it is not the same.
                let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
                match channel.queue_declare(queue.into(), durable, arguments).await {
                    Err(error) if reply_code(&error) == Some(406) => Standing::Differs(error.to_string()),
                    _ => Standing::There { messages, consumers },
                }
            }
            Err(error) if reply_code(&error) == Some(404) => Standing::Missing,
            Err(error) => return Err(error.into()),
        };
        states.push(QueueState { name: queue.to_owned(), standing });
    }
    Ok(states)
}

/// Deletes every queue of the installation, with all that is in them, and the exchange.
pub async fn delete(connection: &Connection, names: &Names) -> Result<(), Unusable> {
    let channel = connection.create_channel().await?;
    for queue in names.all() {
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    }
    channel.exchange_delete(names.events.as_str().into(), ExchangeDeleteOptions::default()).await?;
    done_with(&channel).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_the_nearest_delay_or_several_in_turn() {
        let names = Names::new("x");
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
    fn no_reply_goes_to_a_queue_of_our_own_but_the_replies() {
        let names = Names::new("session-invite");
        for own in ["requests", "retry.1s", "retry.120s", "dropped", "dead", "unreadable"] {
            assert!(names.is_reserved(&format!("session-invite.{own}")), "{own}");
        }
        assert!(!names.is_reserved("session-invite.replies") && !names.is_reserved("crm.replies"));
        assert_eq!(names.all().count(), names.arguments().len());
    }
}
