//! What is published before a message is acknowledged: its reply, or its copy among the dead letters.

use super::{
    consume::Consumer,
    publish::{Outgoing, Published},
};
use crate::{
    invite::{Envelope, Reply, trace::TraceParent},
    metrics,
    trouble::Trouble,
};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable},
};
use std::time::Duration;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What RabbitMQ makes of a requester's `amq.rabbitmq.reply-to` begins so
/// (<https://www.rabbitmq.com/docs/direct-reply-to>).
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to.";
/// How long a message waits before it goes back for want of a dead-letter queue.
const WITHOUT_DEAD: Duration = Duration::from_secs(2);

impl Consumer {
    /// Publishes the reply; one whose queue is gone is set aside with the reason.
    pub(super) async fn answer(&self, envelope: &Envelope, reply: &Reply) -> Result<(), Trouble> {
        metrics::answered(reply);
        let queue = self.reply_queue(envelope);
        let direct = queue.starts_with(DIRECT_REPLY_TO);
        let trace = envelope.traceparent().map(TraceParent::child);
        let message = Outgoing {
            queue: queue.to_owned(),
            body: reply.body.clone(),
            properties: reply_properties(envelope, reply, trace),
            mandatory: !direct,
        };
        if direct {
            // At most once by its nature: there is nobody to keep it for. A name that somebody made up can end the
            // connection, so these have one of their own.
            return self.direct.publish(message).await.map(drop);
        }
        let why = match self.publisher.publish(message.clone()).await? {
            Published::Routed => return Ok(()),
            Published::Unroutable => "unroutable: it is not there",
            Published::Refused => "refused by the broker: it may be full",
        };
        tracing::warn!(queue = %queue.escape_debug(), why, "a reply cannot go to its queue; it is set aside");
        let reason = format!("the queue {queue} is {why}");
        self.publish_dead(message, "reply", &reason, reply.code.unwrap_or_default()).await
    }

    pub(super) async fn set_aside(
        &self,
        delivery: &Delivery,
        envelope: &Envelope,
        reply: &Reply,
        reason: &str,
    ) -> Result<(), Trouble> {
        tracing::error!(reason, "an invite could not be finished; it is set aside");
        // In the dead-letter queue nothing may expire.
        let properties = without_expiration(&delivery.properties);
        let queue = self.names.requests.clone();
        let message = Outgoing { queue, body: envelope.body.clone(), properties, mandatory: true };
        self.publish_dead(message, "request", reason, reply.code.unwrap_or_default()).await?;
        self.answer(envelope, reply).await
    }

    async fn publish_dead(
        &self,
        mut message: Outgoing,
        kind: &'static str,
        reason: &str,
        code: &str,
    ) -> Result<(), Trouble> {
        let mut headers = message.properties.headers().clone().unwrap_or_default();
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        // The broker's count of the deliveries before this one.
        let attempts = match headers.inner().get("x-delivery-count") {
            Some(AMQPValue::LongLongInt(before)) => before.saturating_add(1),
            Some(AMQPValue::LongInt(before)) => i64::from(*before) + 1,
            _ => 1,
        };
        let id = message.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
        let texts = [
            ("x-kind", kind),
            ("x-reason", reason),
            ("x-code", code),
            ("x-first-at", &now),
            ("x-last-at", &now),
            ("x-queue", &message.queue),
            ("x-message-id", &id),
        ];
        for (name, value) in texts {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        headers.insert("x-attempts".into(), AMQPValue::LongLongInt(attempts));
        message.properties = message.properties.with_headers(headers);
        message.queue.clone_from(&self.names.dead);
        message.mandatory = true;
        match self.publisher.publish(message).await? {
            Published::Routed => {
                metrics::dead_letter(kind);
                Ok(())
            }
            Published::Unroutable | Published::Refused => {
                let queue = &self.names.dead;
                tracing::error!(queue, "the dead-letter queue is gone or full; the message goes back");
                tokio::time::sleep(WITHOUT_DEAD).await;
                Err(Trouble::Stopping)
            }
        }
    }

    /// The request's `reply_to`, unless it is refused.
    fn reply_queue<'a>(&'a self, envelope: &'a Envelope) -> &'a str {
        match envelope.reply_to.as_deref() {
            None | Some("") => &self.names.replies,
            // Its own requester alone can be behind it.
            Some(direct) if direct.starts_with(DIRECT_REPLY_TO) => direct,
            Some(queue) if !self.names.is_reserved(queue) && self.reply_to_allow.allows(queue) => queue,
            Some(_) => {
                tracing::warn!("a reply_to is refused; the reply goes to the default queue");
                &self.names.replies
            }
        }
    }
}

fn reply_properties(envelope: &Envelope, reply: &Reply, trace: Option<TraceParent>) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_type(reply.kind().into())
        .with_timestamp(u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default());
    if let Some(id) = envelope.reply_correlation() {
        properties = properties.with_correlation_id(id.into());
    }
    if let Some(trace) = trace {
        let mut headers = FieldTable::default();
        headers.insert("traceparent".into(), AMQPValue::LongString(trace.to_string().into()));
        properties = properties.with_headers(headers);
    }
    properties
}

fn without_expiration(properties: &BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default().with_delivery_mode(2);
    macro_rules! keep {
        ($($get:ident => $with:ident),+) => { $(if let Some(value) = properties.$get().clone() { kept = kept.$with(value); })+ };
    }
    keep!(content_type => with_content_type, content_encoding => with_content_encoding, headers => with_headers,
          priority => with_priority, correlation_id => with_correlation_id, reply_to => with_reply_to,
          message_id => with_message_id, timestamp => with_timestamp, kind => with_type, app_id => with_app_id);
    kept
}
