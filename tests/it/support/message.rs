//! A request as an upstream system publishes it, and the reply as it comes back.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

/// A message to publish.
#[derive(Clone)]
pub struct Message {
    pub body: Vec<u8>,
    pub properties: BasicProperties,
}

impl Message {
    pub fn json(body: &Value) -> Self {
        Self::bytes(body.to_string())
    }

    pub fn bytes(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), properties: BasicProperties::default() }
    }

    pub fn id(self, id: &str) -> Self {
        self.with(|properties| properties.with_message_id(id.into()))
    }

    pub fn correlation(self, id: &str) -> Self {
        self.with(|properties| properties.with_correlation_id(id.into()))
    }

    pub fn reply_to(self, queue: &str) -> Self {
        self.with(|properties| properties.with_reply_to(queue.into()))
    }

    pub fn content_type(self, name: &str) -> Self {
        self.with(|properties| properties.with_content_type(name.into()))
    }

    pub fn content_encoding(self, name: &str) -> Self {
        self.with(|properties| properties.with_content_encoding(name.into()))
    }

    pub fn timestamp(self, at: u64) -> Self {
        self.with(|properties| properties.with_timestamp(at))
    }

    /// Milliseconds.
    pub fn expiration(self, after: &str) -> Self {
        self.with(|properties| properties.with_expiration(after.into()))
    }

    pub fn header(self, name: &str, value: AMQPValue) -> Self {
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        headers.insert(name.into(), value);
        self.with(|properties| properties.with_headers(headers))
    }

    pub fn text_header(self, name: &str, value: &str) -> Self {
        self.header(name, AMQPValue::LongString(value.into()))
    }

    fn with(self, change: impl FnOnce(BasicProperties) -> BasicProperties) -> Self {
        Self { body: self.body, properties: change(self.properties) }
    }
}

/// A message that the worker published.
#[derive(Clone, Debug)]
pub struct Reply {
    pub bytes: Vec<u8>,
    pub properties: BasicProperties,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("a reply is JSON")
    }

    pub fn correlation(&self) -> Option<String> {
        self.properties.correlation_id().as_ref().map(ToString::to_string)
    }

    /// A header that is text.
    pub fn header(&self, name: &str) -> Option<String> {
        match self.properties.headers().as_ref().unwrap_or(&FieldTable::default()).inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            AMQPValue::LongLongInt(number) => Some(number.to_string()),
            other => panic!("the header {name} is {other:?}"),
        }
    }

    /// The properties' `message_id`.
    pub fn message_id(&self) -> Option<String> {
        self.properties.message_id().as_ref().map(ToString::to_string)
    }

    /// The reply to an invite whose text the provider accepted.
    #[track_caller]
    pub fn sent(&self) -> SentReply {
        SentReply::read(&self.json())
    }

    /// The `error` of a reply with this status, code and HTTP status.
    #[track_caller]
    pub fn refused(&self, status: &str, code: &str, http: u16) -> ErrorObject {
        let reply = self.json();
        let error: ErrorObject =
            serde_json::from_value(reply["error"].clone()).unwrap_or_else(|error| panic!("{error}: {reply}"));
        assert_eq!(
            (reply["status"].as_str(), error.code.as_str(), error.status),
            (Some(status), code, http),
            "{reply}"
        );
        error
    }
}

/// The reply to a sent invite (contract, section 7). The gateway's answer has the same fields.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SentReply {
    pub status: String,
    pub session_key: String,
    pub invitation_text: String,
    pub session_id: Uuid,
    pub groupid: u64,
    pub sms_phone: String,
    pub expires_at: String,
    pub provider_message_id: String,
}

impl SentReply {
    #[track_caller]
    pub fn read(reply: &Value) -> Self {
        let sent = Self::deserialize(reply).unwrap_or_else(|error| panic!("{error}: {reply}"));
        assert_eq!(sent.status, "sent", "{reply}");
        sent
    }
}

/// The `error` of a reply that is a refusal.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorObject {
    pub code: String,
    pub message: String,
    /// The HTTP status.
    pub status: u16,
    pub retryable: bool,
    /// Empty when no field is at fault.
    #[serde(default)]
    pub field: String,
    pub provider_code: Option<i64>,
    pub retry_after_seconds: Option<u64>,
}
