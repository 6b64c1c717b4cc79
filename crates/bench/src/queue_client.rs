//! Publishes invites to the queue and receives their replies. Either the number of unanswered invites is limited, or they
//! are published at a fixed rate that does not depend on the replies.

use crate::{broker, load_result::LoadResult, scenario::MAX_UNANSWERED};
use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, Consumer, PublisherConfirm,
    message::Delivery,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde::Deserialize;
use std::{
    cell::Cell,
    time::{Duration, Instant},
};
use test_support::credentials;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{sleep_until, timeout},
};

pub(crate) const GROUP: u64 = 72;
/// How long to wait for the next reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait, at the end, for second replies to the same invites.
const REPEAT_TIMEOUT: Duration = Duration::from_millis(200);

/// The connection of an upstream system, and its queue for replies.
pub(crate) struct QueueClient {
    pub connection: Connection,
    channel: Channel,
    replies: Consumer,
    reply_queue: String,
    authorization: String,
}

#[derive(Deserialize)]
struct QueueReply<'a> {
    #[serde(borrow)]
    status: &'a str,
}

impl QueueClient {
    pub(crate) async fn connect(amqp_url: &str, api_key: &str) -> lapin::Result<Self> {
        let connection = broker::connect(amqp_url, "upstream").await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let incoming = connection.create_channel().await?;
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = incoming.queue_declare("".into(), exclusive, FieldTable::default()).await?;
        let reply_queue = queue.name().to_string();
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consuming =
            incoming.basic_consume(reply_queue.as_str().into(), "".into(), no_ack, FieldTable::default());
        let replies = consuming.await?;
        let authorization = credentials::gkey(GROUP, "12345", api_key);
        Ok(Self { connection, channel, replies, reply_queue, authorization })
    }

    /// Publishes invites to a queue by an exchange, and waits for their replies until none comes within [`REPLY_TIMEOUT`].
    pub(crate) async fn load(
        &mut self,
        (exchange, queue): (&str, &str),
        invites: u32,
        rate: Option<u32>,
    ) -> lapin::Result<LoadResult> {
        let load = Load::new(invites, rate);
        let (confirms, unconfirmed) = mpsc::unbounded_channel();
        let publisher = Publisher {
            channel: &self.channel,
            exchange,
            queue,
            reply_queue: &self.reply_queue,
            authorization: &self.authorization,
        };
        let publishing = async {
            tokio::try_join!(publisher.publish(&load, confirms), wait_for_confirms(unconfirmed))?;
            std::future::pending::<lapin::Result<()>>().await
        };
        let mut result = tokio::select! {
            result = collect(&mut self.replies, &load) => result?,
            failed = publishing => return failed.map(|()| LoadResult::default()),
        };
        while let Ok(Some(reply)) = timeout(REPEAT_TIMEOUT, self.replies.next()).await {
            load.index(&reply?).map_or_else(|| result.strays += 1, |_| result.repeated += 1);
        }
        result.latencies.sort_unstable();
        Ok(result)
    }
}

/// State of one load. Publisher and collector share it on one thread.
struct Load {
    /// The prefix of its message ids, unique for each load.
    name: String,
    rate: Option<u32>,
    start: Instant,
    /// When each invite is due, or was published where there is no rate; since `start`.
    due: Vec<Cell<Duration>>,
    /// One permit for each invite that may be published now.
    permits: Semaphore,
}

impl Load {
    fn new(invites: u32, rate: Option<u32>) -> Self {
        let due = (0..invites).map(|index| {
            Cell::new(rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) * index / rate))
        });
        Self {
            name: uuid::Uuid::new_v4().simple().to_string(),
            rate,
            start: Instant::now(),
            due: due.collect(),
            permits: Semaphore::new(if rate.is_some() { Semaphore::MAX_PERMITS } else { MAX_UNANSWERED }),
        }
    }

    /// The index of the invite that a reply belongs to.
    fn index(&self, reply: &Delivery) -> Option<usize> {
        let correlation = reply.properties.correlation_id().as_ref()?.as_str();
        let index = correlation.strip_prefix(&self.name)?.strip_prefix('-')?.parse().ok()?;
        (index < self.due.len()).then_some(index)
    }
}

struct Publisher<'a> {
    channel: &'a Channel,
    exchange: &'a str,
    queue: &'a str,
    reply_queue: &'a str,
    authorization: &'a str,
}

impl Publisher<'_> {
    async fn publish(
        &self,
        load: &Load,
        confirms: mpsc::UnboundedSender<PublisherConfirm>,
    ) -> lapin::Result<()> {
        for (index, due) in load.due.iter().enumerate() {
            if load.rate.is_some() {
                sleep_until((load.start + due.get()).into()).await;
            } else {
                load.permits.acquire().await.expect("the semaphore is never closed").forget();
                due.set(load.start.elapsed());
            }
            let id = format!("{}-{index}", load.name);
            let properties = BasicProperties::default()
                .with_message_id(id.as_str().into())
                .with_correlation_id(id.as_str().into())
                .with_reply_to(self.reply_queue.into())
                .with_timestamp(credentials::now())
                .with_content_type("application/json".into())
                .with_delivery_mode(2);
            let (body, options) = (self.body(index), BasicPublishOptions::default());
            let publish = self.channel.basic_publish(
                self.exchange.into(),
                self.queue.into(),
                options,
                body.as_bytes(),
                properties,
            );
            let _ = confirms.send(publish.await?);
        }
        Ok(())
    }

    fn body(&self, index: usize) -> String {
        let (authorization, number) = (self.authorization, 2_000_000 + index % 8_000_000);
        format!(
            r#"{{"authorization": "{authorization}", "groupid": {GROUP}, "sessiontype": 1, "smsPhone": "+1415{number}", "sessionParams": {{"camera": "back", "resolution": "352x288"}}}}"#
        )
    }
}

/// Awaits the confirms, in their order. A message without a confirm has no reply, which the result shows.
async fn wait_for_confirms(mut unconfirmed: mpsc::UnboundedReceiver<PublisherConfirm>) -> lapin::Result<()> {
    while let Some(confirm) = unconfirmed.recv().await {
        confirm.await?;
    }
    Ok(())
}

async fn collect(replies: &mut Consumer, load: &Load) -> lapin::Result<LoadResult> {
    let requested = u32::try_from(load.due.len()).expect("the number of invites is a u32");
    let mut result = LoadResult { requested, ..LoadResult::default() };
    let mut answered = vec![false; load.due.len()];
    while result.answered < requested {
        let Ok(Some(reply)) = timeout(REPLY_TIMEOUT, replies.next()).await else { break };
        let reply = reply?;
        let now = load.start.elapsed();
        let Some(index) = load.index(&reply) else {
            result.strays += 1;
            continue;
        };
        if std::mem::replace(&mut answered[index], true) {
            result.repeated += 1;
            continue;
        }
        result.answered += 1;
        result.duration = now;
        result.latencies.push(now.saturating_sub(load.due[index].get()));
        load.permits.add_permits(usize::from(load.rate.is_none()));
        let is_sent =
            serde_json::from_slice::<QueueReply>(&reply.data).is_ok_and(|read| read.status == "sent");
        if !is_sent {
            let text = String::from_utf8_lossy(&reply.data).into_owned();
            *result.other_replies.entry(text).or_default() += 1;
        }
    }
    Ok(result)
}
