//! What is published before a message is acknowledged: its reply, or its copy in a retry queue or among the dead letters.

use super::{
    allowance::Allowance,
    consume::Consumer,
    delivery::{self, FIRST_AT, ROUTING, SESSION, TICKET},
    direct::Sender,
    message::Message,
    metrics::{self, Discarded},
    publish::{Name, Outgoing, Published},
    reply_to::{Form, form, may_reply_to},
};
use crate::{
    failpoint,
    invite::{Envelope, Reply},
    seldom::Seldom,
    sessions::Resume,
    traceparent::TraceParent,
    trouble::Trouble,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Bytes of a sender's headers that are kept beside ours: a frame has 128 KiB at the most, and may have less.
const LARGEST_HEADERS: usize = 64 * 1024;
/// What senders without a credential may leave among the dead letters.
static STRANGERS: Allowance = Allowance::new();
static DISCARDED: Seldom = Seldom::new();
static REFUSED: Seldom = Seldom::new();
/// How often a message is published to a queue of ours that does not take it.
const TRIES: u32 = 4;
/// In between, the consumer may have declared the queue again.
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// Why a message is set aside.
struct Dead<'a> {
    kind: &'static str,
    reason: &'a str,
    code: &'a str,
    attempts: i64,
    first_at: String,
}

impl Consumer {
    /// Publishes the reply; one whose queue is gone is set aside with the reason.
    pub(super) async fn answer(
        &self,
        envelope: &Envelope,
        reply: Reply,
        sender: Sender,
    ) -> Result<(), Trouble> {
        metrics::replied(&reply);
        let queue = self.reply_queue(envelope);
        let direct = form(queue) == Form::Direct;
        let message = Arc::new(Outgoing {
            queue: queue.to_owned(),
            properties: reply_properties(envelope, &reply),
            body: reply.body,
            mandatory: !direct,
            name: Name::MessageId,
        });
        if direct {
            // At most once by its nature: there is nobody to keep it for.
            return self.direct.publish(message, sender).await;
        }
        let published = if queue == self.names.replies {
            Box::pin(self.publish_to_our_own(message.clone())).await?
        } else {
            self.publisher.publish(message.clone()).await?
        };
        let why = match published {
            Published::Routed => return Ok(()),
            Published::Unroutable => "unroutable: it is not there",
            Published::Refused | Published::Lost | Published::Blamed => {
                "refused by the broker: it may be full"
            }
        };
        if sender == Sender::Stranger && !may_leave_a_dead_letter() {
            return Ok(());
        }
        tracing::warn!(queue = %queue.escape_debug(), why, "a reply cannot go to its queue; it is set aside");
        let reason = format!("the queue {queue} is {why}");
        let code = reply.code.unwrap_or_default();
        let dead = Dead { kind: "reply", reason: &reason, code, attempts: 1, first_at: now() };
        Box::pin(self.publish_dead((*message).clone(), dead)).await
    }

    /// Publishes a copy that comes back when the invite's time has come. It carries what its reply needs, and the row's
    /// ticket; neither a credential nor an expiration.
    pub(super) async fn hand_on(&self, message: &Message, resume: Resume) -> Result<(), Trouble> {
        let Message { delivery, envelope, .. } = message;
        let mut headers = FieldTable::default();
        let texts = [
            (SESSION, resume.session.to_string()),
            (TICKET, resume.ticket.to_string()),
            (FIRST_AT, first_at(message)),
        ];
        for (name, value) in texts {
            put(&mut headers, name, &value);
        }
        if let Some(trace) = envelope.traceparent() {
            put(&mut headers, "traceparent", &trace.to_string());
        }
        let copy = Outgoing {
            queue: self.names.retry_for(resume.after).to_owned(),
            body: json!({ "sessionId": resume.session }).to_string().into_bytes(),
            properties: kept(&delivery.properties)
                .with_content_type("application/json".into())
                .with_headers(headers),
            mandatory: true,
            name: Name::Header,
        };
        match self.publish_to_our_own(Arc::new(copy)).await? {
            Published::Routed => {
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
        (reply, sender): (Reply, Sender),
        mut reason: String,
    ) -> Result<(), Trouble> {
        let Message { delivery, envelope, tried } = message;
        tracing::error!(reason, "an invite could not be finished; it is set aside");
        // In the dead-letter queue nothing may expire.
        let mut properties = kept(&delivery.properties);
        // With ours added, they would not fit in a frame any more, and the broker would end the connection.
        if let Some(headers) = properties.headers().as_ref().filter(|headers| size(headers) > LARGEST_HEADERS)
        {
            let read = those_that_are_read(headers);
            properties = properties.with_headers(read);
            reason.push_str("; its other headers were too large to be kept");
        }
        let queue = self.names.requests.clone();
        let body = envelope.body.clone();
        let copy = Outgoing { queue, body, properties, mandatory: true, name: Name::Header };
        let tries = tried.map_or(0, |tried| tried.tries.into());
        let dead = Dead {
            kind: "request",
            reason: &reason,
            code: reply.code.unwrap_or_default(),
            attempts: (delivery::deliveries_before(delivery) + 1).max(tries),
            first_at: first_at(message),
        };
        self.publish_dead(copy, dead).await?;
        self.answer(envelope, reply, sender).await
    }

    async fn publish_dead(&self, mut message: Outgoing, dead: Dead<'_>) -> Result<(), Trouble> {
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
        headers.insert("x-attempts".into(), AMQPValue::LongLongInt(dead.attempts));
        message.properties = message.properties.with_headers(headers);
        message.queue.clone_from(&self.names.dead);
        message.mandatory = true;
        message.name = Name::Header;
        if self.publish_to_our_own(Arc::new(message)).await? != Published::Routed {
            let queue = &self.names.dead;
            tracing::error!(queue, "the dead-letter queue is gone or full; the message goes back");
            return Err(Trouble::Stopping);
        }
        metrics::dead_letter(dead.kind);
        Ok(())
    }

    /// One of our queues may be gone for a moment, until the consumer has declared it again, or full.
    async fn publish_to_our_own(&self, message: Arc<Outgoing>) -> Result<Published, Trouble> {
        let mut published = self.publisher.publish(message.clone()).await?;
        for _ in 1..TRIES {
            if published == Published::Routed {
                break;
            }
            if published == Published::Unroutable {
                self.queues_gone.notify_one();
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
            published = self.publisher.publish(message.clone()).await?;
        }
        Ok(published)
    }

    /// The request's `reply_to`, unless it is refused.
    fn reply_queue<'a>(&'a self, envelope: &'a Envelope) -> &'a str {
        match envelope.reply_to.as_deref() {
            None | Some("") => &self.names.replies,
            // Its own requester alone can be behind a direct one.
            Some(queue)
                if form(queue) == Form::Direct || may_reply_to(queue, &self.names, &self.reply_to_allow) =>
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

/// Whether one more dead letter fits that was left without a credential; else it is counted, and not kept.
pub(super) fn may_leave_a_dead_letter() -> bool {
    let fits = STRANGERS.take();
    if !fits {
        metrics::discarded(Discarded::DeadLetter);
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

/// The headers that an invite is read from, as far as they are of a usual size.
fn those_that_are_read(headers: &FieldTable) -> FieldTable {
    let usual = |value: &AMQPValue| format!("{value:?}").len() < LARGEST_HEADERS / 8;
    let read =
        headers.inner().iter().filter(|(name, value)| delivery::is_read(name.as_str()) && usual(value));
    read.map(|(name, value)| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>().into()
}

/// About how many bytes the headers have in a frame, and not less.
fn size(headers: &FieldTable) -> usize {
    format!("{headers:?}").len()
}

/// When the invite was first worked on: a copy of ours says it, our count of a suspect's tries, or else it is now.
fn first_at(message: &Message) -> String {
    let said = message.delivery.properties.headers().as_ref().filter(|_| message.envelope.ticket.is_some());
    let counted = message.tried.and_then(|tried| tried.first_at.format(&Rfc3339).ok());
    said.and_then(|headers| delivery::text(headers, FIRST_AT)).or(counted).unwrap_or_else(now)
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
    if let Some(trace) = envelope.traceparent().map(TraceParent::child) {
        let mut headers = FieldTable::default();
        put(&mut headers, "traceparent", &trace.to_string());
        properties = properties.with_headers(headers);
    }
    properties
}

/// What a copy keeps: it may not expire, and goes to no further queues.
fn kept(properties: &BasicProperties) -> BasicProperties {
    let mut copy = BasicProperties::default().with_delivery_mode(2);
    macro_rules! keep {
        ($($get:ident => $with:ident),+) => { $(if let Some(value) = properties.$get().clone() { copy = copy.$with(value); })+ };
    }
    keep!(content_type => with_content_type, content_encoding => with_content_encoding, priority => with_priority,
          correlation_id => with_correlation_id, reply_to => with_reply_to, message_id => with_message_id, timestamp => with_timestamp, kind => with_type, app_id => with_app_id);
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if !ROUTING.contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    copy.with_headers(headers)
}
