//! What is published before a message is acknowledged: its reply, or its copy in a retry queue or among the dead letters.

use super::{
    allowance::Allowance,
    consume::Consumer,
    dead::row_key,
    delivery::{self, FIRST_AT, GROUP, ROUTING, SESSION, TICKET},
    direct::SenderKind,
    message::Message,
    metrics::{self, DiscardKind},
    publish::{IdLocation, Outgoing, PublishResult},
    reply_to::{ReplyToKind, may_reply_to},
};
use crate::{
    failpoint,
    group_id::GroupId,
    invite::{Envelope, Reply},
    log_throttle::LogThrottle,
    sessions::{OpenInvite, Resume},
    traceparent::TraceParent,
    trouble::Trouble,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Bytes of a sender's headers that are kept beside ours: a frame has 128 KiB at most, and may have less.
const MAX_HEADERS_SIZE: usize = 64 * 1024;
/// The dead letters that senders without a credential may leave.
static STRANGERS: Allowance = Allowance::new();
static DISCARDED: LogThrottle = LogThrottle::new();
static REFUSED: LogThrottle = LogThrottle::new();
/// How often a message is published to one of our own queues that does not take it.
const TRIES: u32 = 4;
/// Meanwhile the consumer may declare the queue again.
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// The headers of a dead letter: why the message is set aside.
struct DeadLetterHeaders<'a> {
    kind: &'static str,
    reason: &'a str,
    code: &'a str,
    attempts: i64,
    first_at: String,
    /// As the request says, whether it is right or not.
    group: Option<GroupId>,
}

impl Consumer {
    /// Publishes the reply. If its queue is missing or full, the reply is set aside with the reason.
    pub(super) async fn answer(
        &self,
        envelope: &Envelope,
        reply: Reply,
        sender: SenderKind,
    ) -> Result<(), Trouble> {
        metrics::replied(&reply);
        let queue = self.reply_queue(envelope);
        let direct = ReplyToKind::of(queue) == ReplyToKind::Direct;
        let message = Arc::new(Outgoing {
            queue: queue.to_owned(),
            properties: reply_properties(envelope, &reply),
            body: reply.body,
            mandatory: !direct,
            id_location: IdLocation::MessageId,
        });
        if direct {
            // Delivered at most once: only the requester's open connection can take it, so it is never kept.
            return self.direct.publish(message, sender).await;
        }
        let result = if queue == self.names.replies {
            Box::pin(self.publish_to_own_queue(message.clone())).await?
        } else {
            self.publisher.publish(message.clone()).await?
        };
        let why = match result {
            PublishResult::Routed => return Ok(()),
            PublishResult::Unroutable => "unroutable: it is not there",
            PublishResult::Refused | PublishResult::Lost | PublishResult::Blamed => {
                "refused by the broker: it may be full"
            }
        };
        if sender == SenderKind::Stranger && !may_leave_a_dead_letter() {
            return Ok(());
        }
        tracing::warn!(queue, why, "a reply cannot go to its queue; it is set aside");
        let reason = format!("the queue {queue} is {why}");
        let (group, _) = row_key(envelope);
        let code = reply.code.unwrap_or_default();
        let headers =
            DeadLetterHeaders { kind: "reply", reason: &reason, code, attempts: 1, first_at: now(), group };
        Box::pin(self.publish_dead((*message).clone(), headers)).await
    }

    /// Publishes a retry copy, which is delivered when the invite is due. It carries the properties that its reply needs, and
    /// the row's ticket; neither a credential nor an expiration.
    pub(super) async fn hand_on(&self, message: &Message, resume: Resume) -> Result<(), Trouble> {
        let Message { delivery, envelope, .. } = message;
        let mut headers = FieldTable::default();
        let texts = [
            (SESSION, resume.session.to_string()),
            (TICKET, resume.ticket.to_string()),
            // For people who look at the queue: the copy finds its row without it.
            ("groupid", resume.group.to_string()),
            (FIRST_AT, first_at(message)),
        ];
        for (name, value) in texts {
            put(&mut headers, name, &value);
        }
        // The next delivery continues this one's span.
        if let Some(trace) = envelope.trace.context().or_else(|| envelope.traceparent()) {
            put(&mut headers, "traceparent", &trace.to_string());
        }
        let copy = Outgoing {
            queue: self.names.retry_for(resume.after).to_owned(),
            body: Envelope::copy_body(resume.session),
            properties: copied(&delivery.properties)
                .with_content_type("application/json".into())
                .with_headers(headers),
            mandatory: true,
            id_location: IdLocation::Header,
        };
        match self.publish_to_own_queue(Arc::new(copy)).await? {
            PublishResult::Routed => {
                metrics::retried();
                failpoint::hit("copied");
                Ok(())
            }
            _ => Err(Trouble::Stopping),
        }
    }

    pub(super) async fn set_aside(
        &self,
        message: &Message,
        (reply, sender): (Reply, SenderKind),
        mut reason: String,
    ) -> Result<(), Trouble> {
        let Message { delivery, envelope, suspect } = message;
        tracing::error!(reason, "an invite could not be finished; it is set aside");
        let mut properties = copied(&delivery.properties);
        // Together with our headers, larger ones would not fit in a frame, and the broker would close the connection.
        if let Some(headers) =
            properties.headers().as_ref().filter(|headers| size(headers) > MAX_HEADERS_SIZE)
        {
            let invite_headers = invite_headers(headers);
            properties = properties.with_headers(invite_headers);
            reason.push_str("; its other headers were too large to be kept");
        }
        let queue = self.names.requests.clone();
        let body = envelope.body.clone();
        let copy = Outgoing { queue, body, properties, mandatory: true, id_location: IdLocation::Header };
        let tries = suspect.map_or(0, |suspect| suspect.tries.into());
        let headers = DeadLetterHeaders {
            kind: "request",
            reason: &reason,
            code: reply.code.unwrap_or_default(),
            attempts: (delivery::deliveries_before(delivery) + 1).max(tries),
            first_at: first_at(message),
            group: row_key(envelope).0,
        };
        self.publish_dead(copy, headers).await?;
        self.answer(envelope, reply, sender).await
    }

    async fn publish_dead(&self, mut message: Outgoing, dead: DeadLetterHeaders<'_>) -> Result<(), Trouble> {
        let mut headers = message.properties.headers().clone().unwrap_or_default();
        let texts = [
            ("x-kind", dead.kind),
            ("x-reason", dead.reason),
            ("x-code", dead.code),
            (FIRST_AT, &dead.first_at),
            ("x-last-at", &now()),
            ("x-queue", &message.queue),
        ];
        for (name, value) in texts {
            put(&mut headers, name, value);
        }
        if let Some(group) = dead.group {
            put(&mut headers, GROUP, &group.to_string());
        }
        headers.insert("x-attempts".into(), AMQPValue::LongLongInt(dead.attempts));
        message.properties = message.properties.with_headers(headers);
        message.queue.clone_from(&self.names.dead);
        message.mandatory = true;
        message.id_location = IdLocation::Header;
        if self.publish_to_own_queue(Arc::new(message)).await? != PublishResult::Routed {
            let queue = &self.names.dead;
            tracing::error!(
                queue,
                "the dead-letter queue is missing or full; the message returns to its queue"
            );
            return Err(Trouble::Stopping);
        }
        metrics::dead_letter(dead.kind);
        Ok(())
    }

    /// Publishes to one of the worker's own queues. It tries again, as the queue may be full, or missing until the consumer has
    /// declared it again.
    async fn publish_to_own_queue(&self, message: Arc<Outgoing>) -> Result<PublishResult, Trouble> {
        let mut result = self.publisher.publish(message.clone()).await?;
        for _ in 1..TRIES {
            if result == PublishResult::Routed {
                break;
            }
            if result == PublishResult::Unroutable {
                self.queue_missing.notify_one();
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
            result = self.publisher.publish(message.clone()).await?;
        }
        Ok(result)
    }

    /// The request's `reply_to`, or the default queue if that is empty or refused.
    fn reply_queue<'a>(&'a self, envelope: &'a Envelope) -> &'a str {
        match envelope.reply_to.as_deref() {
            None | Some("") => &self.names.replies,
            // A direct reply can reach its own requester only, so REPLY_TO_ALLOW does not apply.
            Some(queue)
                if ReplyToKind::of(queue) == ReplyToKind::Direct
                    || may_reply_to(queue, &self.names, &self.reply_to_allow) =>
            {
                queue
            }
            Some(_) => {
                if let Some(replies) = REFUSED.due() {
                    tracing::warn!(replies, "a reply_to is refused; the reply goes to the default queue");
                }
                &self.names.replies
            }
        }
    }
}

/// The copy with which an open invite goes on from its row. `None` if its row has no ticket.
pub(super) fn resumed_copy(invite: &OpenInvite, requests: String) -> Option<Outgoing> {
    let mut headers = FieldTable::default();
    let created = invite.created_at.format(&Rfc3339).unwrap_or_default();
    let texts = [
        (SESSION, invite.id.to_string()),
        (TICKET, invite.ticket?.to_string()),
        ("groupid", invite.group_id.to_string()),
        (FIRST_AT, created),
    ];
    for (name, value) in texts {
        put(&mut headers, name, &value);
    }
    if let Some(trace) = invite.traceparent.as_deref().and_then(TraceParent::parse) {
        put(&mut headers, "traceparent", &trace.to_string());
    }
    let mut properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_headers(headers);
    if let Some(id) = short(invite.message_id.as_deref()) {
        properties = properties.with_message_id(id);
    }
    if let Some(id) = short(invite.correlation_id.as_deref()) {
        properties = properties.with_correlation_id(id);
    }
    if let Some(queue) = short(invite.reply_to.as_deref()) {
        properties = properties.with_reply_to(queue);
    }
    Some(Outgoing {
        queue: requests,
        body: Envelope::copy_body(invite.id),
        properties,
        mandatory: true,
        id_location: IdLocation::Header,
    })
}

/// The text as a property, if it is short enough: a row's may be longer than the sender's, as it holds no control character.
fn short(text: Option<&str>) -> Option<ShortString> {
    ShortString::try_new(text?).ok()
}

/// Whether a sender without a credential may leave one more dead letter. If not, it is counted as discarded.
pub(super) fn may_leave_a_dead_letter() -> bool {
    let fits = STRANGERS.take();
    if !fits {
        metrics::discarded(DiscardKind::DeadLetter);
        if let Some(messages) = DISCARDED.due() {
            tracing::warn!(
                messages,
                "dead letters of senders without a credential are above the limit, and are not kept"
            );
        }
    }
    fits
}

/// Adds a header that is text.
fn put(headers: &mut FieldTable, name: &str, value: &str) {
    headers.insert(name.into(), AMQPValue::LongString(value.into()));
}

/// The headers that an invite is read from, without oversized ones.
fn invite_headers(headers: &FieldTable) -> FieldTable {
    let is_small = |value: &AMQPValue| format!("{value:?}").len() < MAX_HEADERS_SIZE / 8;
    let read =
        headers.inner().iter().filter(|(name, value)| delivery::is_read(name.as_str()) && is_small(value));
    read.map(|(name, value)| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>().into()
}

/// An upper estimate of the headers' bytes in a frame.
fn size(headers: &FieldTable) -> usize {
    format!("{headers:?}").len()
}

/// When a worker first took the invite: from the retry copy's header, from a suspect's row, or else now.
fn first_at(message: &Message) -> String {
    let of_copy =
        message.delivery.properties.headers().as_ref().filter(|_| message.envelope.ticket.is_some());
    let of_suspect = message.suspect.and_then(|suspect| suspect.first_at.format(&Rfc3339).ok());
    of_copy.and_then(|headers| delivery::text(headers, FIRST_AT)).or(of_suspect).unwrap_or_else(now)
}

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

fn reply_properties(envelope: &Envelope, reply: &Reply) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_type(reply.kind().into())
        .with_timestamp(u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default());
    if let Some(id) = envelope.reply_correlation() {
        properties = properties.with_correlation_id(id.into());
    }
    if let Some(trace) = envelope.continued_trace() {
        let mut headers = FieldTable::default();
        put(&mut headers, "traceparent", &trace.to_string());
        properties = properties.with_headers(headers);
    }
    properties
}

/// The properties of a copy, without those that would let it expire or route it to further queues.
fn copied(properties: &BasicProperties) -> BasicProperties {
    let mut copy = BasicProperties::default().with_delivery_mode(2);
    macro_rules! copy {
        ($($get:ident => $with:ident),+) => { $(if let Some(value) = properties.$get().clone() { copy = copy.$with(value); })+ };
    }
    copy!(content_type => with_content_type, content_encoding => with_content_encoding, priority => with_priority,
          correlation_id => with_correlation_id, reply_to => with_reply_to, message_id => with_message_id, timestamp => with_timestamp, kind => with_type, app_id => with_app_id);
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if !ROUTING.contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    copy.with_headers(headers)
}
