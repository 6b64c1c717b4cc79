//! From lapin's delivery to the invite's envelope.

use crate::invite::{Envelope, envelope::HeaderValue};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};
use uuid::Uuid;

/// The headers that an invite is read from.
const INVITE_HEADERS: [&str; 4] = ["authorization", "x-gssnid", "groupid", "traceparent"];

/// A session's id and ticket, in the headers of a retry copy.
pub(super) const SESSION: &str = "x-session-id";
pub(super) const TICKET: &str = "x-ticket";
/// When a worker first took the invite of a copy.
pub(super) const FIRST_AT: &str = "x-first-at";
/// The group of a dead letter, as its request says.
pub(super) const GROUP: &str = "x-group";
/// RabbitMQ also routes a message to the queues that these headers name (<https://www.rabbitmq.com/docs/sender-selected>).
/// The sender's own publish has done that; a copy must not do it again, least of all to the queue that it came from.
pub(super) const ROUTING: [&str; 2] = ["CC", "BCC"];
/// The broker's count of earlier deliveries (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
const DELIVERY_COUNT: &str = "x-delivery-count";
/// From its third delivery on, a message is a suspect: it may have ended the workers that had it before.
const SUSPECT_FROM: i64 = 2;

/// Whether the message was delivered twice before, or more often.
pub(super) fn is_suspect(delivery: &Delivery) -> bool {
    deliveries_before(delivery) >= SUSPECT_FROM
}

/// Deliveries before this one. The broker's header counts only on a redelivery, as a publisher can write it as well.
pub(super) fn deliveries_before(delivery: &Delivery) -> i64 {
    if delivery.redelivered { delivery_count(&delivery.properties) } else { 0 }
}

/// The header's count of the deliveries before this one. On a first delivery, only the publisher can have written it.
pub(super) fn delivery_count(properties: &BasicProperties) -> i64 {
    let count = properties.headers().as_ref().and_then(|headers| headers.inner().get(DELIVERY_COUNT));
    match count.and_then(header_value) {
        Some(HeaderValue::Integer(count)) => count,
        _ => 0,
    }
}

/// The session and the ticket that a retry copy carries.
fn ticket(headers: &FieldTable) -> Option<(Uuid, Uuid)> {
    Some((uuid(headers, SESSION)?, uuid(headers, TICKET)?))
}

fn uuid(headers: &FieldTable, name: &str) -> Option<Uuid> {
    text(headers, name).and_then(|text| Uuid::parse_str(&text).ok())
}

/// A header's value, if it is text.
pub(super) fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name).and_then(header_value)? {
        HeaderValue::Text(text) => Some(text),
        _ => None,
    }
}

/// Takes the body out of the delivery, and copies the properties that an invite is read from.
pub(super) fn envelope(delivery: &mut Delivery) -> Envelope {
    let body = std::mem::take(&mut delivery.data);
    Envelope { redelivered: delivery.redelivered, ..read(&delivery.properties, body) }
}

/// The envelope of a message that was not delivered before.
pub(super) fn read(properties: &BasicProperties, body: Vec<u8>) -> Envelope {
    let headers = properties.headers().as_ref();
    let owned = |text: &Option<ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
    Envelope {
        body,
        message_id: owned(properties.message_id()),
        correlation_id: owned(properties.correlation_id()),
        reply_to: owned(properties.reply_to()),
        content_type: owned(properties.content_type()),
        content_encoding: owned(properties.content_encoding()),
        timestamp: *properties.timestamp(),
        expiration: owned(properties.expiration()),
        headers: headers.map(read_headers).unwrap_or_default(),
        ticket: headers.and_then(ticket),
        ..Envelope::default()
    }
}

/// Whether an invite is read from this header.
pub(super) fn is_read(header: &str) -> bool {
    INVITE_HEADERS.iter().any(|read| header.eq_ignore_ascii_case(read))
}

fn read_headers(table: &FieldTable) -> Vec<(String, HeaderValue)> {
    let known = table.inner().iter().filter_map(|(name, value)| {
        let name = INVITE_HEADERS.into_iter().find(|read| name.as_str().eq_ignore_ascii_case(read))?;
        Some((name.to_owned(), header_value(value)?))
    });
    known.collect()
}

/// `None` for a header without a value.
fn header_value(value: &AMQPValue) -> Option<HeaderValue> {
    Some(match value {
        AMQPValue::Void => return None,
        AMQPValue::LongString(text) => bytes(text.as_bytes()),
        AMQPValue::ByteArray(array) => bytes(array.as_slice()),
        AMQPValue::ShortString(text) => HeaderValue::Text(text.as_str().to_owned()),
        AMQPValue::ShortShortInt(number) => HeaderValue::Integer((*number).into()),
        AMQPValue::ShortShortUInt(number) => HeaderValue::Integer((*number).into()),
        AMQPValue::ShortInt(number) => HeaderValue::Integer((*number).into()),
        AMQPValue::ShortUInt(number) => HeaderValue::Integer((*number).into()),
        AMQPValue::LongInt(number) => HeaderValue::Integer((*number).into()),
        AMQPValue::LongUInt(number) => HeaderValue::Integer((*number).into()),
        AMQPValue::LongLongInt(number) => HeaderValue::Integer(*number),
        _ => HeaderValue::Other,
    })
}

fn bytes(bytes: &[u8]) -> HeaderValue {
    std::str::from_utf8(bytes).map_or(HeaderValue::Other, |text| HeaderValue::Text(text.to_owned()))
}

/// Why and from which queue the broker dropped a message last.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Death {
    pub reason: String,
    pub queue: String,
}

impl Death {
    pub(super) fn is_expiry_in(&self, queue: &str) -> bool {
        self.reason == "expired" && self.queue == queue
    }
}

/// From `x-death`, whose first entry is the newest (<https://www.rabbitmq.com/docs/dlx#effects>).
pub(super) fn last_death(delivery: &Delivery) -> Option<Death> {
    let headers = delivery.properties.headers().as_ref()?;
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(newest) = deaths.as_slice().first()? else { return None };
    let text = |name: &str| match newest.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    };
    Some(Death { reason: text("reason")?, queue: text("queue")? })
}
