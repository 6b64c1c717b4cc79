//! Between the client library's delivery and the invite's envelope.

use crate::invite::{Envelope, envelope::HeaderValue};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};
use uuid::Uuid;

const READ: [&str; 4] = ["authorization", "x-gssnid", "groupid", "traceparent"];

/// A session's id and ticket, in the headers of a copy of ours.
pub const SESSION: &str = "x-session-id";
pub const TICKET: &str = "x-ticket";
/// When a copy's invite was first worked on.
pub const FIRST_AT: &str = "x-first-at";
/// RabbitMQ sends a message on to the queues that these name (<https://www.rabbitmq.com/docs/sender-selected>). The
/// sender's own publish has done that; a copy must not do it again, least of all to the queue that it came from.
pub const ROUTING: [&str; 2] = ["CC", "BCC"];
/// Deliveries of a message before this one (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
const DELIVERY_COUNT: &str = "x-delivery-count";
/// From its third delivery on, a message may be what ended the workers that had it before.
const SUSPECT_FROM: i64 = 2;

/// Whether the message was delivered twice before, or more often.
pub fn is_suspect(delivery: &Delivery) -> bool {
    deliveries_before(delivery) >= SUSPECT_FROM
}

/// Deliveries before this one. The broker's header alone does not count: a publisher can write it too, but not on a message
/// that the broker delivers again.
pub fn deliveries_before(delivery: &Delivery) -> i64 {
    if delivery.redelivered { delivery_count(&delivery.properties) } else { 0 }
}

/// The broker's count of the deliveries before this one.
pub fn delivery_count(properties: &BasicProperties) -> i64 {
    let count = properties.headers().as_ref().and_then(|headers| headers.inner().get(DELIVERY_COUNT));
    match count.and_then(header_value) {
        Some(HeaderValue::Integer(count)) => count,
        _ => 0,
    }
}

/// What a copy of ours says of the row that it goes on with.
fn ticket(headers: &FieldTable) -> Option<(Uuid, Uuid)> {
    Some((uuid(headers, SESSION)?, uuid(headers, TICKET)?))
}

fn uuid(headers: &FieldTable, name: &str) -> Option<Uuid> {
    text(headers, name).and_then(|text| Uuid::parse_str(&text).ok())
}

/// A header that is text.
pub fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name).and_then(header_value)? {
        HeaderValue::Text(text) => Some(text),
        _ => None,
    }
}

/// Takes the body out of the delivery; the rest is copied as far as it is read.
pub fn envelope(delivery: &mut Delivery) -> Envelope {
    let body = std::mem::take(&mut delivery.data);
    Envelope { redelivered: delivery.redelivered, ..read(&delivery.properties, body) }
}

/// The envelope of a message that was not delivered before.
pub fn read(properties: &BasicProperties, body: Vec<u8>) -> Envelope {
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

/// Whether a header is one that an invite is read from.
pub fn is_read(header: &str) -> bool {
    READ.iter().any(|read| header.eq_ignore_ascii_case(read))
}

fn read_headers(table: &FieldTable) -> Vec<(String, HeaderValue)> {
    let known = table.inner().iter().filter_map(|(name, value)| {
        let name = READ.into_iter().find(|read| name.as_str().eq_ignore_ascii_case(read))?;
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

/// Why and where the broker dropped a message last.
#[derive(Debug, PartialEq, Eq)]
pub struct Death {
    pub reason: String,
    pub queue: String,
}

impl Death {
    pub fn is_expiry_in(&self, queue: &str) -> bool {
        self.reason == "expired" && self.queue == queue
    }
}

/// From `x-death`, whose first entry is the newest (<https://www.rabbitmq.com/docs/dlx#effects>).
pub fn last_death(delivery: &Delivery) -> Option<Death> {
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
