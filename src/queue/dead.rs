//! The dead letters, for an operator: looked at, replayed, dropped.
//!
//! **Nothing is lost here, whatever happens.** A message is acknowledged only after its replay, or a fresh copy of it, is
//! confirmed, or when it is dropped by name; all others go back. Going back counts: where RabbitMQ has a delivery limit
//! (4.x has one of 20 for every quorum queue), it throws away what was looked at too often. So what nears it is replaced
//! by a fresh copy, whose count begins anew ([`DeadLetters::keep`]).

mod letter;

pub use letter::{ID_DIGITS, Kind, Letter, Replay, is_added, named};

use super::{
    Names, Unusable, connect,
    connection::{Right, reply_code},
};
use crate::config::BrokerConfig;
use lapin::{
    Acker, Channel, Connection,
    options::{
        BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use std::time::Duration;

/// Messages that one command looks at, at most.
pub const MOST: u32 = 10_000;
/// Deliveries after which a message is replaced by a copy, well below RabbitMQ's limit of 20: as many commands may be
/// killed in the middle.
const RENEW_AT: i64 = 10;
/// How long the broker may take for a confirm. It holds publishers back while it is short of memory or disk.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait until what goes back is in the queue again, for the next command to see.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// Why the dead letters cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("there is no queue {0}; start a worker, which declares it, or check QUEUE_PREFIX")]
    NoQueue(String),
    #[error(
        "the broker did not confirm within {} s that it has the message {id}, so the dead letter stays; it may come \
         twice. Is the broker short of memory or disk?",
        CONFIRM_WITHIN.as_secs()
    )]
    Unconfirmed { id: String },
    #[error(
        "{queue} does not take a fresh copy of the message {id}, which was looked at {deliveries} times, and RabbitMQ \
         4.x throws away what was looked at 20 times. Is the broker short of memory or disk? Look again when it is not"
    )]
    NotKept { queue: String, id: String, deliveries: i64 },
    #[error(transparent)]
    Broker(#[from] Unusable),
}

impl From<lapin::Error> for Trouble {
    fn from(error: lapin::Error) -> Self {
        Self::Broker(error.into())
    }
}

/// A dead letter in hand. Forgetting it returns it, once the connection ends.
#[derive(Debug)]
pub struct Held {
    pub letter: Letter,
    acker: Acker,
}

/// What came of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// Confirmed; the dead letter is gone.
    Done,
    /// The queue is not there; the dead letter stays.
    Unroutable,
    /// The queue is full, or has no leader; the dead letter stays.
    Refused,
}

/// The dead-letter queue, as it was when it was opened: what comes later is not seen, so that a request that fails again
/// is not replayed for ever.
#[derive(Debug)]
pub struct DeadLetters {
    pub names: Names,
    /// Messages in the queue when it was opened.
    pub waiting: u32,
    /// Of those, looked at.
    pub seen: u32,
    /// Of those, given back at the end.
    kept: u32,
    config: BrokerConfig,
    connection: Connection,
    channel: Channel,
    /// A connection of its own, so that acknowledgements flow while the broker holds publishers back.
    publishing: Option<(Connection, Channel)>,
}

impl DeadLetters {
    pub async fn open(config: BrokerConfig) -> Result<Self, Trouble> {
        let names = Names::new(&config.queue_prefix);
        let connection = connect(&config, "dead letters").await?;
        let channel = connection.create_channel().await?;
        let waiting = count(&channel, &names.dead).await.map_err(|error| match reply_code(&error) {
            Some(404) => Trouble::NoQueue(names.dead.clone()),
            _ => error.into(),
        })?;
        Ok(Self { names, waiting, seen: 0, kept: 0, config, connection, channel, publishing: None })
    }

    /// Messages that this command will not look at, as there are so many.
    pub fn beyond(&self) -> u32 {
        self.waiting.saturating_sub(MOST)
    }

    /// The next one, in the order of the queue.
    pub async fn next(&mut self) -> Result<Option<Held>, Trouble> {
        if self.seen >= self.waiting.min(MOST) {
            return Ok(None);
        }
        let queue = self.names.dead.as_str();
        let got = self.channel.basic_get(queue.into(), BasicGetOptions::default()).await;
        let got = got.map_err(|error| Unusable::of(Right::Read, queue, error))?;
        let Some(got) = got else { return Ok(None) };
        self.seen += 1;
        let delivery = got.delivery;
        let letter = Letter::new(delivery.properties, delivery.data);
        Ok(Some(Held { letter, acker: delivery.acker }))
    }

    /// Leaves it in the queue: goes back at the end or, if that has happened to it often, a fresh copy in its place.
    pub async fn keep(&mut self, held: Held) -> Result<(), Trouble> {
        if held.letter.deliveries() < RENEW_AT {
            self.kept += 1;
            return Ok(());
        }
        let queue = self.names.dead.clone();
        let properties = held.letter.properties_of_a_copy();
        let copy = Replay { queue, body: held.letter.body.clone(), properties };
        match self.publish(&held.letter.id, &copy).await {
            Ok(Replayed::Done) => self.drop(&held).await,
            Ok(Replayed::Unroutable | Replayed::Refused) | Err(Trouble::Unconfirmed { .. }) => {
                let deliveries = held.letter.deliveries();
                Err(Trouble::NotKept { queue: copy.queue, id: held.letter.id, deliveries })
            }
            Err(error) => Err(error),
        }
    }

    /// Publishes in its place and, once that is confirmed, takes it out of the queue; else it stays there.
    pub async fn replay(&mut self, held: Held, replay: &Replay) -> Result<Replayed, Trouble> {
        let replayed = self.publish(&held.letter.id, replay).await?;
        match replayed {
            Replayed::Done => self.drop(&held).await?,
            Replayed::Unroutable | Replayed::Refused => self.keep(held).await?,
        }
        Ok(replayed)
    }

    /// Takes it out of the queue, for good.
    pub async fn drop(&mut self, held: &Held) -> Result<(), Trouble> {
        held.acker.ack(BasicAckOptions::default()).await?;
        Ok(())
    }

    /// One at a time: so a message that comes back comes on its own confirm, and no other's.
    async fn publish(&mut self, id: &str, message: &Replay) -> Result<Replayed, Trouble> {
        let channel = self.publisher().await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (queue, properties) = (message.queue.as_str().into(), message.properties.clone());
        let publishing = async {
            channel.basic_publish("".into(), queue, options, &message.body, properties).await?.await
        };
        let confirmed = tokio::time::timeout(CONFIRM_WITHIN, publishing).await;
        let confirmed = confirmed.map_err(|_| Trouble::Unconfirmed { id: id.to_owned() })?;
        let confirmed = confirmed.map_err(Unusable::of_publishing)?;
        let taken = confirmed.is_ack();
        Ok(match confirmed.take_message() {
            Some(_) => Replayed::Unroutable,
            None if taken => Replayed::Done,
            None => Replayed::Refused,
        })
    }

    /// Opened when it is first needed.
    async fn publisher(&mut self) -> Result<&Channel, Trouble> {
        let publishing = if let Some(open) = self.publishing.take() {
            open
        } else {
            let connection = connect(&self.config, "replayed dead letters").await?;
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            (connection, channel)
        };
        Ok(&self.publishing.insert(publishing).1)
    }

    /// Gives back what was kept, and waits until it is there. On any error before this, the broker gives it back.
    pub async fn close(self) -> Result<(), Trouble> {
        if self.kept > 0 {
            // All that this channel has not acknowledged.
            let all = BasicNackOptions { multiple: true, requeue: true };
            self.channel.basic_nack(0, all).await?;
            let back = async {
                while count(&self.channel, &self.names.dead).await? < self.kept {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok::<_, lapin::Error>(())
            };
            if let Ok(counted) = tokio::time::timeout(BACK_WITHIN, back).await {
                counted?;
            }
        }
        if let Some((connection, _)) = self.publishing {
            connection.close(200, "done".into()).await?;
        }
        self.connection.close(200, "done".into()).await?;
        Ok(())
    }
}

/// Messages in the queue that no client has in hand.
async fn count(channel: &Channel, queue: &str) -> Result<u32, lapin::Error> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(queue.into(), passive, FieldTable::default()).await?.message_count())
}
