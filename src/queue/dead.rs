//! The dead letters, for an operator: to read, replay and drop.
//!
//! **No message is lost here.** A message is acknowledged only after its replay, or a fresh copy of it, is confirmed, or
//! when an operator drops it by its id. All others return to the queue. RabbitMQ counts returns: where it has a delivery
//! limit (4.x has one of 20 for every quorum queue), it drops a message that was read too often. So a message near the limit
//! is replaced by a fresh copy, whose count begins at zero ([`DeadLetters::keep`]).

mod ahead;
mod letter;

pub(crate) use letter::{ID_DIGITS, Letter, LetterKind, Replay, is_added, row_key};

use super::{
    BrokerConnection, BrokerError, QueueNames, connect,
    connection::{BrokerPermission, answer_of_node, connect_to_some_node, is_missing, no_node_answers},
};
use crate::config::BrokerConfig;
use ahead::Ahead;
use lapin::{
    Acker, Channel, Connection,
    message::Delivery,
    options::{
        BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use std::time::Duration;

/// Messages that one command reads, at most.
pub(crate) const MAX_READ: u32 = 10_000;
/// Deliveries after which a message is replaced by a copy, well below RabbitMQ's limit of 20: until then, that many commands
/// may be killed before they replace it.
const RENEW_AT: i64 = 10;
/// The same while one letter is looked for that a person has seen in a list: a copy would be at the queue's end.
const RENEW_LATE_AT: i64 = 16;
/// How long the broker may take for a confirm. It holds publishers back while it is short of memory or disk.
const CONFIRMS_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait until returned messages are in the queue again, for the next command to read.
const RETURNED_WITHIN: Duration = Duration::from_secs(1);

/// Why the dead letters cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeadLetterError {
    #[error("there is no queue {0}; start a worker, which declares it, or check QUEUE_PREFIX")]
    MissingQueue(String),
    #[error(
        "the broker did not confirm within {} s that it has the message {id}, so the dead letter stays; it may come \
         twice. Is the broker short of memory or disk?",
        CONFIRMS_WITHIN.as_secs()
    )]
    Unconfirmed { id: String },
    #[error(
        "{queue} does not take a fresh copy of the message {id}, which was read {deliveries} times, and RabbitMQ 4.x \
         drops a message that was read 20 times. Is the broker short of memory or disk? Try again when it is not"
    )]
    NotRenewed { queue: String, id: String, deliveries: i64 },
    #[error("the connection to the broker ended before the dead letter {id} was removed, so it stays")]
    NotRemoved { id: String },
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl FetchedLetter {
    fn new(delivery: Delivery) -> Self {
        Self { letter: Letter::new(delivery.properties, delivery.data), acker: delivery.acker }
    }
}

impl From<lapin::Error> for DeadLetterError {
    fn from(error: lapin::Error) -> Self {
        Self::Broker(error.into())
    }
}

/// A dead letter that was fetched, and is still unacknowledged: unless it is dropped or replayed, it returns to the queue
/// when the connection closes.
#[derive(Debug)]
pub(crate) struct FetchedLetter {
    pub letter: Letter,
    acker: Acker,
}

/// What became of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplayResult {
    /// Confirmed; the dead letter is removed.
    Confirmed,
    /// Confirmed; the connection ended before the dead letter was removed, so it stays.
    ConfirmedNotRemoved,
    /// The queue is not there; the dead letter stays.
    Unroutable,
    /// The queue is full, or has no leader; the dead letter stays.
    Refused,
}

/// The dead-letter queue, or another queue that an operator works on, as it was when it was opened. Later messages are not
/// read, so that a request that fails again is not replayed for ever.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    pub names: QueueNames,
    pub queue: String,
    /// Messages that are read at most.
    most: u32,
    /// Messages in the queue when it was opened.
    pub waiting: u32,
    /// Of those, read.
    pub read: u32,
    /// Letters that come next, if they are fetched together.
    ahead: Option<Ahead>,
    /// Of all that were fetched, returned at the end.
    kept: u32,
    renewed: u32,
    /// Deliveries after which a message is replaced by a copy.
    renew_at: i64,
    config: BrokerConfig,
    connection: Connection,
    channel: Channel,
    /// Another connection, so that acknowledgements flow while the broker holds publishers back.
    publishing: Option<(Connection, Channel)>,
}

impl DeadLetters {
    /// Opens the dead-letter queue, to read so many messages at most.
    pub(crate) async fn open(config: BrokerConfig, most: u32) -> Result<Self, DeadLetterError> {
        let queue = QueueNames::new(&config.queue_prefix).dead;
        Self::open_queue(config, queue, most).await
    }

    /// Opens another queue of the installation, to read so many messages at most.
    pub(crate) async fn open_queue(
        config: BrokerConfig,
        queue: String,
        most: u32,
    ) -> Result<Self, DeadLetterError> {
        let names = QueueNames::new(&config.queue_prefix);
        // Not by `on_answering_node`: the compiler does not see that a future with its closure may change threads.
        let mut answered = None;
        for _ in &config.nodes {
            let open = connect_to_some_node(&config, "dead letters").await?;
            let opening = open_channel(&open, &queue);
            if let Some(done) = answer_of_node(&config, &open.node, opening).await {
                answered = Some((open, done?));
                break;
            }
        }
        let (open, (channel, waiting)) = answered.ok_or_else(|| no_node_answers(&config))?;
        let connection = open.connection;
        Ok(Self {
            names,
            queue,
            most,
            waiting,
            read: 0,
            ahead: None,
            kept: 0,
            renewed: 0,
            renew_at: RENEW_AT,
            config,
            connection,
            channel,
            publishing: None,
        })
    }

    /// Replaces messages by copies later than usual, so that they stay in their places.
    pub(crate) fn renew_late(&mut self) {
        self.renew_at = RENEW_LATE_AT;
    }

    /// Fetches letters together, for a command that reads many and changes none: it holds some that nobody has seen yet.
    pub(crate) fn fetch_together(&mut self) {
        self.ahead = Some(Ahead::default());
    }

    /// Messages that this command does not read.
    pub(crate) fn unread(&self) -> u32 {
        self.waiting.saturating_sub(self.most)
    }

    /// How many letters that were there at the beginning are not read yet. After the last one others hold these, or have taken them.
    pub(crate) fn left(&self) -> u32 {
        self.waiting.min(self.most).saturating_sub(self.read)
    }

    pub(crate) fn has_more(&self) -> bool {
        self.left() > 0
    }

    /// Fetches the next letter, in the order of the queue.
    pub(crate) async fn next(&mut self) -> Result<Option<FetchedLetter>, DeadLetterError> {
        // An empty queue tells only by a reading whether this user may read it.
        if !self.has_more() && self.waiting > 0 {
            return Ok(None);
        }
        let left = self.left();
        let mut got = None;
        if let Some(ahead) = &mut self.ahead
            && left > 0
        {
            got = ahead.next(&self.channel, &self.queue, left).await?;
        }
        // Of a consumer that is sent nothing it is not known whether the queue has no more.
        let Some(delivery) = (match got {
            Some(delivery) => Some(delivery),
            None => self.get().await?,
        }) else {
            return Ok(None);
        };
        if self.waiting == 0 {
            // It came after the opening, and returns at the end, as all that is not settled.
            return Ok(None);
        }
        self.read += 1;
        let fetched = FetchedLetter::new(delivery);
        if let Some(ahead) = &mut self.ahead {
            ahead.set_young(fetched.letter.deliveries() < self.renew_at);
        }
        Ok(Some(fetched))
    }

    /// One letter; `None` if the queue has no more, or others hold them. It costs a commit of a quorum queue.
    async fn get(&self) -> Result<Option<Delivery>, DeadLetterError> {
        let queue = self.queue.as_str();
        let got = self.channel.basic_get(queue.into(), BasicGetOptions::default()).await;
        let got = got.map_err(|error| BrokerError::of(BrokerPermission::Read, queue, error))?;
        Ok(got.map(|message| message.delivery))
    }

    /// How many letters were replaced by copies, which are at the queue's end.
    pub(crate) fn renewed(&self) -> u32 {
        self.renewed
    }

    /// Leaves the letter in the queue. It returns there at the end; one that has returned often is replaced by a fresh copy.
    pub(crate) async fn keep(&mut self, fetched: FetchedLetter) -> Result<(), DeadLetterError> {
        if fetched.letter.deliveries() < self.renew_at {
            self.kept += 1;
            return Ok(());
        }
        let queue = self.queue.clone();
        let properties = fetched.letter.properties_of_a_copy();
        let copy = Replay { queue, body: fetched.letter.body.clone(), properties };
        match self.publish(&fetched.letter.id, &copy).await {
            Ok(ReplayResult::Confirmed) => {
                self.renewed += 1;
                self.drop(&fetched).await
            }
            Ok(ReplayResult::ConfirmedNotRemoved | ReplayResult::Unroutable | ReplayResult::Refused)
            | Err(DeadLetterError::Unconfirmed { .. }) => {
                let deliveries = fetched.letter.deliveries();
                Err(DeadLetterError::NotRenewed { queue: copy.queue, id: fetched.letter.id, deliveries })
            }
            Err(error) => Err(error),
        }
    }

    /// Publishes `replay`, and removes the letter once that is confirmed; otherwise the letter stays in the queue.
    pub(crate) async fn replay(
        &mut self,
        fetched: FetchedLetter,
        replay: &Replay,
    ) -> Result<ReplayResult, DeadLetterError> {
        let result = self.publish(&fetched.letter.id, replay).await?;
        Ok(match result {
            ReplayResult::Confirmed if self.drop(&fetched).await.is_ok() => ReplayResult::Confirmed,
            ReplayResult::Confirmed | ReplayResult::ConfirmedNotRemoved => ReplayResult::ConfirmedNotRemoved,
            ReplayResult::Unroutable | ReplayResult::Refused => {
                self.keep(fetched).await?;
                result
            }
        })
    }

    /// Removes the letter from the queue, for good.
    pub(crate) async fn drop(&mut self, fetched: &FetchedLetter) -> Result<(), DeadLetterError> {
        // lapin does not make an error of a channel that has closed.
        if fetched.acker.ack(BasicAckOptions::default()).await? {
            Ok(())
        } else {
            Err(DeadLetterError::NotRemoved { id: fetched.letter.id.clone() })
        }
    }

    /// Publishes one message at a time, so that a returned message comes on its own confirm.
    async fn publish(&mut self, id: &str, message: &Replay) -> Result<ReplayResult, DeadLetterError> {
        let channel = self.publisher().await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (queue, properties) = (message.queue.as_str().into(), message.properties.clone());
        let publishing = async {
            channel.basic_publish("".into(), queue, options, &message.body, properties).await?.await
        };
        let confirm = tokio::time::timeout(CONFIRMS_WITHIN, publishing).await;
        let confirm = confirm.map_err(|_| DeadLetterError::Unconfirmed { id: id.to_owned() })?;
        let confirm = confirm.map_err(BrokerError::of_publishing)?;
        let is_ack = confirm.is_ack();
        Ok(match confirm.take_message() {
            Some(_) => ReplayResult::Unroutable,
            None if is_ack => ReplayResult::Confirmed,
            None => ReplayResult::Refused,
        })
    }

    /// The channel for publishing, opened when it is first needed.
    async fn publisher(&mut self) -> Result<&Channel, DeadLetterError> {
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

    /// Returns the kept letters, and waits until they are in the queue. After an error, the broker returns them by itself.
    ///
    /// A quorum queue without a delivery limit has returned messages at its end (RabbitMQ 3.10), unless they return because their
    /// connection ends. So if all were read, they are returned by `basic.nack`, in their order. If only the first were read, the
    /// end of the connection returns them to the front, in any order: otherwise each reading would turn the queue over.
    pub(crate) async fn close(mut self) -> Result<(), DeadLetterError> {
        let unseen = self.ahead.take().map(Ahead::into_letters).unwrap_or_default();
        let fetched = self.read + u32::try_from(unseen.len()).unwrap_or_default();
        if self.channel.status().connected() {
            for delivery in unseen {
                self.keep(FetchedLetter::new(delivery)).await?;
            }
        }
        let returns_all = fetched >= self.waiting;
        if self.kept > 0 && returns_all {
            // All deliveries that this channel has not acknowledged.
            let all = BasicNackOptions { multiple: true, requeue: true };
            self.channel.basic_nack(0, all).await?;
            until_returned(&self.channel, &self.queue, self.kept).await?;
        }
        if let Some((connection, _)) = self.publishing {
            connection.close(200, "done".into()).await?;
        }
        self.connection.close(200, "done".into()).await?;
        if self.kept > 0 && !returns_all {
            let open = connect_to_some_node(&self.config, "dead letters").await?;
            let channel = open.connection.create_channel().await?;
            let all = self.waiting.saturating_sub(fetched) + self.kept;
            until_returned(&channel, &self.queue, all).await?;
            open.connection.close(200, "done".into()).await?;
        }
        Ok(())
    }
}

/// Waits until the queue has so many messages.
async fn until_returned(channel: &Channel, queue: &str, messages: u32) -> Result<(), lapin::Error> {
    let returned = async {
        while count(channel, queue).await? < messages {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    tokio::time::timeout(RETURNED_WITHIN, returned).await.unwrap_or(Ok(()))
}

/// A channel, and how many messages the queue has.
async fn open_channel(open: &BrokerConnection, queue: &str) -> Result<(Channel, u32), DeadLetterError> {
    let channel = open.connection.create_channel().await?;
    let waiting = count(&channel, queue).await.map_err(|error| {
        if is_missing(&error) { DeadLetterError::MissingQueue(queue.to_owned()) } else { error.into() }
    })?;
    Ok((channel, waiting))
}

/// Messages in the queue, without those that a client has not acknowledged.
async fn count(channel: &Channel, queue: &str) -> Result<u32, lapin::Error> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(queue.into(), passive, FieldTable::default()).await?.message_count())
}
