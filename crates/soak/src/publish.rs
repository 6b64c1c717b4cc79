//! Upstream systems: they publish with confirms, and publish again what was not confirmed.

use crate::{
    agree::holds_its_id,
    ask::Gateways,
    book::{Book, correlation},
    broker::{self, AGAIN},
    invite::{Invite, Kind, Secrets},
};
use lapin::{
    BasicProperties, Channel, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long a confirm is waited for before its connection is given up.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);
/// A queue that is not there.
const NOWHERE: &str = "soak-nowhere";

/// What all publishers share.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub url: String,
    pub book: Arc<Book>,
    pub secrets: Arc<Secrets>,
    pub gateways: Gateways,
    /// Invites that may be without an answer.
    pub window: Arc<Semaphore>,
}

/// One upstream system. Its connection is opened when it is needed, and dropped when it fails.
#[derive(Clone)]
struct Publisher {
    upstream: Upstream,
    reply_to: Option<String>,
    line: Arc<Mutex<Option<Line>>>,
}

#[derive(Clone)]
struct Line {
    connection: Arc<Connection>,
    channel: Channel,
}

/// Publishes those invites, each at its time, and ends when each has its answers.
pub async fn run(upstream: Upstream, publisher: usize, invites: Vec<Invite>) {
    let publisher = Publisher { upstream, reply_to: broker::reply_queue(publisher), line: Arc::default() };
    let begun = Instant::now();
    let mut stories = JoinSet::new();
    for invite in invites {
        sleep(invite.due.saturating_sub(begun.elapsed())).await;
        let place = publisher.upstream.window.clone().acquire_owned().await.expect("the window stays open");
        stories.spawn(publisher.clone().story(invite, place));
        while stories.try_join_next().is_some() {}
    }
    while let Some(ended) = stories.join_next().await {
        ended.expect("no publisher panics");
    }
}

impl Publisher {
    /// One invite, until the last of its publishes is answered.
    async fn story(self, invite: Invite, place: OwnedSemaphorePermit) {
        let first = self.publish(&invite, &invite.phone).await;
        if invite.kind == Kind::RepeatedAtOnce {
            let again = self.publish(&invite, &invite.phone).await;
            self.answer(&invite, again).await;
        }
        let answer = self.answer(&invite, first).await;
        drop(place);
        match invite.kind {
            Kind::RepeatedLater => {
                sleep(invite.pause).await;
                let again = self.publish(&invite, &invite.phone).await;
                self.answer(&invite, again).await;
            }
            // A text may exist, so the id is taken.
            Kind::Conflict if answer.is_some_and(|reply| holds_its_id(&reply)) => {
                sleep(invite.pause).await;
                let other = self.publish(&invite, &invite.other_phone).await;
                self.answer(&invite, other).await;
            }
            _ => {}
        }
    }

    async fn answer(&self, invite: &Invite, publish: Option<usize>) -> Option<Vec<u8>> {
        Some(self.upstream.book.answer(invite.index, publish?).await)
    }

    /// Publishes until a message is confirmed, and gives which; what is confirmed has to be answered. An invite without
    /// an id is published once: a second message would be a second invite.
    async fn publish(&self, invite: &Invite, phone: &str) -> Option<usize> {
        if invite.over_http && self.upstream.book.is_new(invite.index) {
            return Some(self.ask(invite, phone).await);
        }
        let reply_to = if invite.kind == Kind::Orphan { Some(NOWHERE) } else { self.reply_to.as_deref() };
        loop {
            let line = self.line().await;
            let book = &self.upstream.book;
            let body = invite.body(phone, &self.upstream.secrets);
            let publish = book.publishing(invite.index, phone);
            let properties = invite.properties(&correlation(invite.index, publish), reply_to);
            match timeout(CONFIRM_WITHIN, confirm(&line.channel, &body, properties)).await {
                Ok(Ok(true)) => {
                    book.confirmed(invite.index, publish);
                    return Some(publish);
                }
                Ok(Ok(false)) => book.complain("the broker returned or refused a request"),
                Ok(Err(_)) | Err(_) => self.lost(&line).await,
            }
            if invite.kind == Kind::Anonymous {
                return None;
            }
            sleep(AGAIN).await;
        }
    }

    /// The same over HTTP, until it is answered.
    async fn ask(&self, invite: &Invite, phone: &str) -> usize {
        let book = &self.upstream.book;
        let publish = book.publishing(invite.index, phone);
        let reply = self.upstream.gateways.ask(invite, &invite.body(phone, &self.upstream.secrets)).await;
        book.confirmed(invite.index, publish);
        book.heard(&correlation(invite.index, publish), reply, false);
        publish
    }

    /// The open connection, or a new one, however long that takes.
    async fn line(&self) -> Line {
        let mut line = self.line.lock().await;
        loop {
            if let Some(line) = line.as_ref() {
                return line.clone();
            }
            *line = timeout(CONFIRM_WITHIN, self.open()).await.ok().flatten();
            if line.is_none() {
                sleep(AGAIN).await;
            }
        }
    }

    async fn open(&self) -> Option<Line> {
        let connection = broker::connect(&self.upstream.url, "publisher").await?;
        let channel = connection.create_channel().await.ok()?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.ok()?;
        Some(Line { connection: Arc::new(connection), channel })
    }

    /// Gives that connection up, unless another story has done so already.
    async fn lost(&self, lost: &Line) {
        let mut line = self.line.lock().await;
        if line.as_ref().is_some_and(|line| Arc::ptr_eq(&line.connection, &lost.connection)) {
            *line = None;
        }
    }
}

/// Whether the broker has taken it.
async fn confirm(channel: &Channel, body: &[u8], properties: BasicProperties) -> lapin::Result<bool> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm =
        channel.basic_publish("".into(), broker::queue("requests").into(), options, body, properties).await?;
    let confirmed = confirm.await?;
    Ok(confirmed.is_ack() && confirmed.take_message().is_none())
}
