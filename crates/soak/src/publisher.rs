//! Upstream systems. They publish with confirms, and publish again what was not confirmed.

use crate::{
    broker::{self, RETRY_DELAY},
    checks::holds_its_id,
    gateway_client::GatewayClient,
    invite::{GroupSecrets, Invite, InviteKind},
    journal::{Journal, correlation},
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

/// How long to wait for a confirm, before the connection is dropped.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(15);
/// The name of a queue that does not exist.
const NO_QUEUE: &str = "soak-nowhere";

/// What all publishers share.
#[derive(Debug, Clone)]
pub(crate) struct PublisherContext {
    pub amqp_url: String,
    pub journal: Arc<Journal>,
    pub secrets: Arc<GroupSecrets>,
    pub gateways: GatewayClient,
    /// Whether the broker has several nodes.
    pub is_cluster: bool,
    /// One permit for each invite that may be unanswered.
    pub permits: Arc<Semaphore>,
}

/// One upstream system. Its connection is opened when it is needed, and dropped when it fails.
#[derive(Clone)]
struct Publisher {
    context: PublisherContext,
    reply_to: Option<String>,
    connection: Arc<Mutex<Option<PublisherConnection>>>,
}

#[derive(Clone)]
struct PublisherConnection {
    connection: Arc<Connection>,
    channel: Channel,
}

/// Publishes invites, each at its time. Ends when all are answered.
pub(crate) async fn run(context: PublisherContext, publisher: usize, invites: Vec<Invite>) {
    let publisher =
        Publisher { context, reply_to: broker::reply_queue(publisher), connection: Arc::default() };
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for invite in invites {
        sleep(invite.due.saturating_sub(start.elapsed())).await;
        let permits = publisher.context.permits.clone();
        let permit = permits.acquire_owned().await.expect("the semaphore is never closed");
        tasks.spawn(publisher.clone().publish_until_answered(invite, permit));
        while tasks.try_join_next().is_some() {}
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no publisher panics");
    }
}

impl Publisher {
    /// Publishes one invite and its repeats. Ends when the last of its messages is answered.
    async fn publish_until_answered(self, invite: Invite, permit: OwnedSemaphorePermit) {
        let first = self.publish(&invite, &invite.phone).await;
        if invite.kind == InviteKind::RepeatedAtOnce {
            let repeat = self.publish(&invite, &invite.phone).await;
            self.reply(&invite, repeat).await;
        }
        let reply = self.reply(&invite, first).await;
        drop(permit);
        match invite.kind {
            InviteKind::RepeatedLater => {
                sleep(invite.pause).await;
                let repeat = self.publish(&invite, &invite.phone).await;
                self.reply(&invite, repeat).await;
            }
            // A text may exist, so the id is taken.
            InviteKind::Conflict if reply.is_some_and(|reply| holds_its_id(&reply)) => {
                sleep(invite.pause).await;
                let conflict = self.publish(&invite, &invite.other_phone).await;
                self.reply(&invite, conflict).await;
            }
            _ => {}
        }
    }

    async fn reply(&self, invite: &Invite, message: Option<usize>) -> Option<Vec<u8>> {
        Some(self.context.journal.reply(invite.index, message?).await)
    }

    /// Publishes until a message is confirmed, and gives its index. A confirmed message must be answered. An invite without
    /// an id is published once, since a second message would be a second invite.
    async fn publish(&self, invite: &Invite, phone: &str) -> Option<usize> {
        let journal = &self.context.journal;
        if invite.over_http && journal.is_new(invite.index) {
            return Some(self.send_over_http(invite, phone).await);
        }
        let reply_to =
            if invite.kind == InviteKind::Orphan { Some(NO_QUEUE) } else { self.reply_to.as_deref() };
        loop {
            let connection = self.connection().await;
            let body = invite.body(phone, &self.context.secrets);
            let message = journal.note_publish(invite.index, phone);
            let properties = invite.properties(&correlation(invite.index, message), reply_to);
            match timeout(CONFIRM_TIMEOUT, offer(&connection.channel, &body, properties)).await {
                Ok(Ok(Acceptance::Taken)) => {
                    journal.note_confirm(invite.index, message);
                    return Some(message);
                }
                Ok(Ok(Acceptance::Returned)) => journal.complain("the broker returned a request"),
                // A queue refuses what comes while it has no leader.
                Ok(Ok(Acceptance::Refused)) if self.context.is_cluster => {}
                Ok(Ok(Acceptance::Refused)) => journal.complain("the broker refused a request"),
                Ok(Err(_)) | Err(_) => self.drop_connection(&connection).await,
            }
            if invite.kind == InviteKind::Anonymous {
                return None;
            }
            sleep(RETRY_DELAY).await;
        }
    }

    /// Sends the invite over HTTP until it is answered, and gives the index of the request.
    async fn send_over_http(&self, invite: &Invite, phone: &str) -> usize {
        let PublisherContext { journal, gateways, secrets, .. } = &self.context;
        let message = journal.note_publish(invite.index, phone);
        let reply = gateways.send(invite, &invite.body(phone, secrets)).await;
        journal.note_confirm(invite.index, message);
        journal.note_reply(&correlation(invite.index, message), reply, false);
        message
    }

    /// The open connection, or a new one. It tries until it has one.
    async fn connection(&self) -> PublisherConnection {
        let mut connection = self.connection.lock().await;
        loop {
            if let Some(connection) = connection.as_ref() {
                return connection.clone();
            }
            *connection = timeout(CONFIRM_TIMEOUT, self.connect()).await.ok().flatten();
            if connection.is_none() {
                sleep(RETRY_DELAY).await;
            }
        }
    }

    async fn connect(&self) -> Option<PublisherConnection> {
        let connection = broker::connect(&self.context.amqp_url, "publisher").await?;
        let channel = connection.create_channel().await.ok()?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.ok()?;
        Some(PublisherConnection { connection: Arc::new(connection), channel })
    }

    /// Drops a failed connection, unless another task has done so already.
    async fn drop_connection(&self, failed: &PublisherConnection) {
        let mut current = self.connection.lock().await;
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.connection, &failed.connection)) {
            *current = None;
            let connection = failed.connection.clone();
            tokio::spawn(async move {
                let _ = timeout(CONFIRM_TIMEOUT, connection.close(200, "over".into())).await;
            });
        }
    }
}

/// What the broker does with a published message.
enum Acceptance {
    Taken,
    /// `basic.nack`.
    Refused,
    /// There was no queue for it.
    Returned,
}

/// Publishes to the requests' queue.
async fn offer(channel: &Channel, body: &[u8], properties: BasicProperties) -> lapin::Result<Acceptance> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm =
        channel.basic_publish("".into(), broker::queue("requests").into(), options, body, properties).await?;
    let confirmation = confirm.await?;
    Ok(match (confirmation.is_ack(), confirmation.take_message()) {
        (_, Some(_)) => Acceptance::Returned,
        (true, None) => Acceptance::Taken,
        (false, None) => Acceptance::Refused,
    })
}
