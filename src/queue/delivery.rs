//! Between the client library's delivery and the invite's envelope.

use crate::invite::{Envelope, envelope::HeaderValue};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio_util::sync::CancellationToken;

const READ: [&str; 4] = ["authorization", "x-gssnid", "groupid", "traceparent"];

/// Takes the body out of the delivery; the rest is copied as far as it is read.
pub fn envelope(delivery: &mut Delivery) -> Envelope {
    let body = std::mem::take(&mut delivery.data);
    Envelope { redelivered: delivery.redelivered, ..read(&delivery.properties, body) }
}

/// The envelope of a message that was not delivered before.
pub fn read(properties: &BasicProperties, body: Vec<u8>) -> Envelope {
    let owned = |text: &Option<ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
    Envelope {
        body,
        message_id: owned(properties.message_id()),
        correlation_id: owned(properties.correlation_id()),
        reply_to: owned(properties.reply_to()),
        content_type: owned(properties.content_type()),
        timestamp: *properties.timestamp(),
        expiration: owned(properties.expiration()),
        headers: properties.headers().as_ref().map(read_headers).unwrap_or_default(),
        redelivered: false,
        expired_in_queue: false,
        withdrawn: CancellationToken::new(),
    }
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
