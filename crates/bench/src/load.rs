//! Publishes invites and takes their replies: as many at a time as a window lets, or so many a second whatever comes back.

use crate::{broker, outcome::Outcome, part::WINDOW};
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

pub const GROUP: u64 = 72;
/// After the last reply, how long the next one is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a second reply to one invite is waited for at the end.
const LATE: Duration = Duration::from_millis(200);

/// An upstream system: its connection, and a queue of its own for replies.
pub struct Upstream {
    pub connection: Connection,
    channel: Channel,
    replies: Consumer,
    reply_queue: String,
    authorization: String,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    status: &'a str,
}

impl Upstream {
    pub async fn connect(url: &str, api_key: &str) -> lapin::Result<Self> {
        let connection = broker::connect(url, "upstream").await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let incoming = connection.create_channel().await?;
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = incoming.queue_declare("".into(), exclusive, FieldTable::default()).await?;
        let reply_queue = queue.name().to_string();
        let automatic = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consuming =
            incoming.basic_consume(reply_queue.as_str().into(), "".into(), automatic, FieldTable::default());
        let replies = consuming.await?;
        let authorization = credentials::gkey(GROUP, "12345", api_key);
        Ok(Self { connection, channel, replies, reply_queue, authorization })
    }

    /// Publishes so many to a queue and waits for their replies, as long as there are any.
    pub async fn load(&mut self, queue: &str, invites: u32, rate: Option<u32>) -> lapin::Result<Outcome> {
        let load = Load::new(invites, rate);
        let (confirms, unconfirmed) = mpsc::unbounded_channel();
        let publisher = Publisher {
            channel: &self.channel,
            queue,
            reply_queue: &self.reply_queue,
            authorization: &self.authorization,
        };
        let publishing = async {
            tokio::try_join!(publisher.publish(&load, confirms), confirmed(unconfirmed))?;
            std::future::pending::<lapin::Result<()>>().await
        };
        let mut outcome = tokio::select! {
            outcome = collect(&mut self.replies, &load) => outcome?,
            failed = publishing => return failed.map(|()| Outcome::default()),
        };
        while let Ok(Some(reply)) = timeout(LATE, self.replies.next()).await {
            load.place(&reply?).map_or_else(|| outcome.strays += 1, |_| outcome.repeated += 1);
        }
        outcome.latencies.sort_unstable();
        Ok(outcome)
    }
}

/// What publisher and collector share; both run on one thread.
struct Load {
    /// Of its messages' ids, so that no two loads share any.
    name: String,
    rate: Option<u32>,
    begun: Instant,
    /// When each should have been published, or was, where there is no rate; from `begun` on.
    due: Vec<Cell<Duration>>,
    window: Semaphore,
}

impl Load {
    fn new(invites: u32, rate: Option<u32>) -> Self {
        let due = (0..invites)
            .map(|at| Cell::new(rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) * at / rate)));
        Self {
            name: uuid::Uuid::new_v4().simple().to_string(),
            rate,
            begun: Instant::now(),
            due: due.collect(),
            window: Semaphore::new(if rate.is_some() { Semaphore::MAX_PERMITS } else { WINDOW }),
        }
    }

    /// Which invite a reply is to.
    fn place(&self, reply: &Delivery) -> Option<usize> {
        let correlation = reply.properties.correlation_id().as_ref()?.as_str();
        let place = correlation.strip_prefix(&self.name)?.strip_prefix('-')?.parse().ok()?;
        (place < self.due.len()).then_some(place)
    }
}

struct Publisher<'a> {
    channel: &'a Channel,
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
        for (place, due) in load.due.iter().enumerate() {
            if load.rate.is_some() {
                sleep_until((load.begun + due.get()).into()).await;
            } else {
                load.window.acquire().await.expect("it is never closed").forget();
                due.set(load.begun.elapsed());
            }
            let id = format!("{}-{place}", load.name);
            let properties = BasicProperties::default()
                .with_message_id(id.as_str().into())
                .with_correlation_id(id.as_str().into())
                .with_reply_to(self.reply_queue.into())
                .with_timestamp(credentials::now())
                .with_content_type("application/json".into())
                .with_delivery_mode(2);
            let (body, options) = (self.body(place), BasicPublishOptions::default());
            let publish = self.channel.basic_publish(
                "".into(),
                self.queue.into(),
                options,
                body.as_bytes(),
                properties,
            );
            let _ = confirms.send(publish.await?);
        }
        Ok(())
    }

    fn body(&self, place: usize) -> String {
        let (authorization, number) = (self.authorization, 2_000_000 + place % 8_000_000);
        format!(
            r#"{{"authorization": "{authorization}", "groupid": {GROUP}, "sessiontype": 1, "smsPhone": "+1415{number}", "sessionParams": {{"camera": "back", "resolution": "352x288"}}}}"#
        )
    }
}

/// Takes the confirms, in their order. A message that is not confirmed has no reply, which is found at the end.
async fn confirmed(mut unconfirmed: mpsc::UnboundedReceiver<PublisherConfirm>) -> lapin::Result<()> {
    while let Some(confirm) = unconfirmed.recv().await {
        confirm.await?;
    }
    Ok(())
}

async fn collect(replies: &mut Consumer, load: &Load) -> lapin::Result<Outcome> {
    let asked = u32::try_from(load.due.len()).expect("so many were asked for");
    let mut outcome = Outcome { asked, ..Outcome::default() };
    let mut seen = vec![false; load.due.len()];
    while outcome.answered < asked {
        let Ok(Some(reply)) = timeout(PATIENCE, replies.next()).await else { break };
        let reply = reply?;
        let now = load.begun.elapsed();
        let Some(place) = load.place(&reply) else {
            outcome.strays += 1;
            continue;
        };
        if std::mem::replace(&mut seen[place], true) {
            outcome.repeated += 1;
            continue;
        }
        outcome.answered += 1;
        outcome.took = now;
        outcome.latencies.push(now.saturating_sub(load.due[place].get()));
        load.window.add_permits(usize::from(load.rate.is_none()));
        match serde_json::from_slice::<Reply>(&reply.data) {
            Ok(Reply { status: "sent" }) => {}
            _ => *outcome.others.entry(String::from_utf8_lossy(&reply.data).into_owned()).or_default() += 1,
        }
    }
    Ok(outcome)
}
