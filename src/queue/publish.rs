//! Publishing with confirms, on a connection of its own: while the broker holds publishers back, deliveries and
//! acknowledgements still flow. One task owns the channel, and outlives any connection.

use super::connection::{Unusable, connect};
use crate::{config::BrokerConfig, trouble::Trouble};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use std::{collections::HashSet, time::Duration};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Messages that wait for the channel at most; more wait in their senders.
const WAITING: usize = 1_024;

/// A message for one queue, by the default exchange.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub queue: String,
    pub body: Vec<u8>,
    pub properties: BasicProperties,
    /// Whether to be told when the queue is not there. RabbitMQ's direct reply-to reports that even for what
    /// it delivers, so it is off there.
    pub mandatory: bool,
}

/// What the broker has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Routed,
    /// Its queue is not there.
    Unroutable,
}

struct Job {
    /// Ours, in the `message_id`: the broker's return names the message by it.
    id: Uuid,
    message: Outgoing,
    done: oneshot::Sender<Published>,
}

/// A handle on the publishing task.
#[derive(Debug, Clone)]
pub struct Publisher {
    jobs: mpsc::Sender<Job>,
}

impl Publisher {
    /// Starts the task; it ends when every handle is dropped, or at `stop`.
    pub fn start(config: BrokerConfig, stop: CancellationToken) -> Self {
        let (jobs, queue) = mpsc::channel(WAITING);
        tokio::spawn(async move { stop.run_until_cancelled(run(config, queue)).await });
        Self { jobs }
    }

    /// Waits for the broker's confirm, however long the broker is away. The message may be published more than
    /// once: a lost connection hides its confirm.
    pub async fn publish(&self, mut message: Outgoing) -> Result<Published, Trouble> {
        let (done, confirmed) = oneshot::channel();
        let id = Uuid::now_v7();
        message.properties = message.properties.with_message_id(id.to_string().into());
        self.jobs.send(Job { id, message, done }).await.map_err(|_| Trouble::Stopping)?;
        confirmed.await.map_err(|_| Trouble::Stopping)
    }
}

type Confirms = FuturesUnordered<BoxFuture<'static, (Job, Result<Confirmation, lapin::Error>)>>;

async fn run(config: BrokerConfig, mut queue: mpsc::Receiver<Job>) {
    let mut again = Vec::new();
    let mut pause = Duration::from_millis(100);
    loop {
        match open(&config).await {
            Ok((connection, channel)) => {
                pause = Duration::from_millis(100);
                let ended = pump(&channel, &mut queue, &mut again).await;
                let _ = connection.close(200, "done".into()).await;
                if ended {
                    return;
                }
                tracing::warn!(unconfirmed = again.len(), "the broker's connection for publishing is lost");
            }
            Err(error) => tracing::debug!(%error, "the connection for publishing cannot be opened yet"),
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

async fn open(config: &BrokerConfig) -> Result<(lapin::Connection, Channel), Unusable> {
    let connection = connect(config, "publisher").await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

/// Publishes until the channel fails (`false`, the unconfirmed are in `again`) or no handle is left (`true`).
///
/// One task reads all confirms, in the order in which the client resolved them: a return always comes before
/// the confirm of its message, though perhaps on another's.
async fn pump(channel: &Channel, queue: &mut mpsc::Receiver<Job>, again: &mut Vec<Job>) -> bool {
    let mut confirms = Confirms::new();
    let mut returned = HashSet::new();
    let mut failed = false;
    for job in std::mem::take(again) {
        failed |= !publish(channel, job, &mut confirms, again).await;
    }
    while !failed {
        tokio::select! {
            biased;
            Some((job, confirmed)) = confirms.next() => failed = !settle(job, confirmed, &mut returned, again),
            job = queue.recv() => match job {
                Some(job) => failed = !publish(channel, job, &mut confirms, again).await,
                None => return true,
            },
        }
    }
    while let Some((job, confirmed)) = confirms.next().await {
        settle(job, confirmed, &mut returned, again);
    }
    false
}

/// Whether the channel took it.
async fn publish(channel: &Channel, job: Job, confirms: &mut Confirms, again: &mut Vec<Job>) -> bool {
    let Outgoing { queue, body, properties, mandatory } = &job.message;
    let options = BasicPublishOptions { mandatory: *mandatory, ..BasicPublishOptions::default() };
    match channel.basic_publish("".into(), queue.as_str().into(), options, body, properties.clone()).await {
        Ok(confirm) => {
            confirms.push(confirm.map(|confirmed| (job, confirmed)).boxed());
            true
        }
        Err(error) => {
            tracing::debug!(%error, "a message could not be published");
            again.push(job);
            false
        }
    }
}

/// Whether the channel still works.
fn settle(
    job: Job,
    confirmed: Result<Confirmation, lapin::Error>,
    returned: &mut HashSet<String>,
    again: &mut Vec<Job>,
) -> bool {
    let (acked, back) = match confirmed {
        Ok(Confirmation::Ack(back)) => (true, back),
        Ok(Confirmation::Nack(back)) => (false, back),
        Ok(Confirmation::NotRequested) | Err(_) => {
            again.push(job);
            return false;
        }
    };
    if let Some(id) = back.as_ref().and_then(|message| message.properties.message_id().as_ref()) {
        returned.insert(id.to_string());
    }
    let published =
        if returned.remove(&job.id.to_string()) { Published::Unroutable } else { Published::Routed };
    if acked {
        let _ = job.done.send(published);
        true
    } else {
        // The broker could not keep it (a queue without a leader, or a full one): a new channel, after a pause.
        again.push(job);
        false
    }
}
