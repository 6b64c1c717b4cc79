//! A request of the gateway, as a message.

use super::{
    publish::{IdLocation, Outgoing},
    topology::QueueNames,
};
use crate::{
    invite::{Envelope, envelope::HeaderValue},
    traceparent::TraceParent,
};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use std::time::{SystemTime, UNIX_EPOCH};

impl Outgoing {
    /// A request for the worker. [`RpcClient::call`](super::RpcClient::call) sets `reply_to` and `correlation_id`.
    pub(crate) fn request(names: &QueueNames, envelope: Envelope) -> Self {
        Self {
            queue: names.requests.clone(),
            properties: properties(&envelope),
            body: envelope.body,
            mandatory: true,
            id_location: IdLocation::Header,
        }
    }
}

/// The envelope's fields that the gateway has checked, as properties. It has refused credentials that differ, so the first
/// value of each header is enough.
fn properties(envelope: &Envelope) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, written) in
        [("authorization", "Authorization"), ("x-gssnid", "X-GSSNID"), ("groupid", "groupid")]
    {
        let given = envelope.headers(name).find_map(|value| match value {
            HeaderValue::Text(text) if !text.trim().is_empty() || name == "groupid" => Some(text),
            _ => None,
        });
        if let Some(text) = given {
            headers.insert(written.into(), AMQPValue::LongString(text.as_str().into()));
        }
    }
    if let Some(trace) = envelope.traceparent().map(TraceParent::child) {
        headers.insert("traceparent".into(), AMQPValue::LongString(trace.to_string().into()));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_timestamp(now)
        .with_headers(headers);
    match &envelope.message_id {
        Some(id) => properties.with_message_id(id.as_str().into()),
        None => properties,
    }
}
