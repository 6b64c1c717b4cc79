//! An accepted message, and its JSON for clients and for the inbox.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sms_provider::codes::{self, ErrorCode};
use sms_provider::segments::segments;
use strum::IntoStaticStr;
use time::OffsetDateTime;

/// A message is `queued` until this long after it was received, then `sent`.
pub(super) const SENT_AFTER: Duration = Duration::from_millis(100);
/// A message is `sent` until this long after it was received. Then it has its receipt.
pub(super) const RECEIPT_AFTER: Duration = Duration::from_millis(300);

/// How messages end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryOutcome {
    /// The carrier reports that the text arrived.
    #[default]
    Delivered,
    /// The carrier reports that it did not arrive, with error 30003.
    Undelivered,
    /// The carrier sends no report: messages stay `sent`.
    None,
}

/// A message's status, with the provider's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(super) enum MessageStatus {
    /// Queued at a messaging service.
    Accepted,
    Queued,
    Sent,
    Delivered,
    Undelivered,
}

impl MessageStatus {
    pub(crate) fn name(self) -> &'static str {
        self.into()
    }

    /// The carrier's error, for a message that did not arrive.
    pub(crate) fn error_code(self) -> Option<ErrorCode> {
        (self == Self::Undelivered).then_some(codes::HANDSET_UNREACHABLE)
    }
}

/// A message's id: `SM` and 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MessageSid(pub u128);

impl MessageSid {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("SM").filter(|digits| digits.len() == 32)?;
        let is_lowercase_hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        u128::from_str_radix(digits, 16).ok().filter(|_| is_lowercase_hex).map(Self)
    }
}

impl fmt::Display for MessageSid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SM{:032x}", self.0)
    }
}

/// The sending number, or the messaging service that chooses one.
#[derive(PartialEq, Eq)]
pub(super) enum MessageOrigin {
    From(Box<str>),
    Service(Box<str>),
}

/// The parameters of a create, after they were checked.
pub(super) struct MessageDraft {
    pub account_sid: Box<str>,
    pub to: Box<str>,
    pub sender: MessageOrigin,
    pub body: Box<str>,
    /// Seconds.
    pub validity_period: u32,
    pub status_callback: Option<Box<str>>,
    pub traceparent: Option<Box<str>>,
}

/// An accepted message. It never changes: its status is a function of the time.
pub(super) struct AcceptedMessage {
    /// Counts the messages of one run, from 1.
    pub seq: u64,
    pub sid: MessageSid,
    pub draft: MessageDraft,
    pub received: OffsetDateTime,
    pub deliver: DeliveryOutcome,
}

impl AcceptedMessage {
    pub(crate) fn from(&self) -> Option<&str> {
        match &self.draft.sender {
            MessageOrigin::From(number) => Some(number),
            MessageOrigin::Service(_) => None,
        }
    }

    fn service(&self) -> Option<&str> {
        match &self.draft.sender {
            MessageOrigin::From(_) => None,
            MessageOrigin::Service(sid) => Some(sid),
        }
    }

    pub(crate) fn status(&self, now: OffsetDateTime) -> MessageStatus {
        let age = now - self.received;
        match (&self.draft.sender, self.deliver) {
            (MessageOrigin::Service(_), _) if age < SENT_AFTER => MessageStatus::Accepted,
            (MessageOrigin::From(_), _) if age < SENT_AFTER => MessageStatus::Queued,
            (_, DeliveryOutcome::Delivered) if age >= RECEIPT_AFTER => MessageStatus::Delivered,
            (_, DeliveryOutcome::Undelivered) if age >= RECEIPT_AFTER => MessageStatus::Undelivered,
            _ => MessageStatus::Sent,
        }
    }

    /// The provider's message resource at the time `now`.
    pub(crate) fn resource(&self, now: OffsetDateTime) -> MessageResource<'_> {
        let status = self.status(now);
        let uri = format!("/2010-04-01/Accounts/{}/Messages/{}.json", self.draft.account_sid, self.sid);
        let media = format!("{}/Media.json", uri.trim_end_matches(".json"));
        let sent = self.received + SENT_AFTER;
        let receipt = self.received + RECEIPT_AFTER;
        let (date_sent, date_updated) = match status {
            MessageStatus::Accepted | MessageStatus::Queued => (None, self.received),
            MessageStatus::Sent => (Some(sent), sent),
            MessageStatus::Delivered | MessageStatus::Undelivered => (Some(sent), receipt),
        };
        MessageResource {
            identity: Some(ResourceIdentity {
                sid: self.sid.to_string(),
                uri,
                subresource_uris: SubresourceUris { media },
            }),
            body: &self.draft.body,
            num_segments: segments(&self.draft.body).segments.to_string(),
            num_media: "0",
            direction: "outbound-api",
            from: self.from(),
            to: &self.draft.to,
            messaging_service_sid: self.service(),
            account_sid: &self.draft.account_sid,
            status,
            error_code: status.error_code(),
            error_message: status.error_code().map(|_| "Unreachable destination handset"),
            price: None,
            price_unit: "USD",
            api_version: "2010-04-01",
            date_created: self.received,
            date_updated,
            date_sent,
        }
    }

    /// The message as `/sandbox/messages` shows it.
    pub(crate) fn inbox_entry(&self, now: OffsetDateTime) -> InboxEntry<'_> {
        InboxEntry {
            seq: self.seq,
            sid: self.sid.to_string(),
            account_sid: &self.draft.account_sid,
            to: &self.draft.to,
            from: self.from(),
            messaging_service_sid: self.service(),
            body: &self.draft.body,
            validity_period: self.draft.validity_period,
            status_callback: self.draft.status_callback.as_deref(),
            traceparent: self.draft.traceparent.as_deref(),
            status: self.status(now),
            received: self.received,
        }
    }
}

/// The provider's JSON for a message. Twilio determines which members are strings, integers and nulls.
#[derive(Serialize)]
pub(super) struct MessageResource<'a> {
    /// `None` leaves out all members that contain the message's id.
    #[serde(flatten)]
    pub identity: Option<ResourceIdentity>,
    body: &'a str,
    num_segments: String,
    num_media: &'static str,
    direction: &'static str,
    from: Option<&'a str>,
    to: &'a str,
    messaging_service_sid: Option<&'a str>,
    account_sid: &'a str,
    status: MessageStatus,
    error_code: Option<ErrorCode>,
    error_message: Option<&'static str>,
    price: Option<&'static str>,
    price_unit: &'static str,
    api_version: &'static str,
    #[serde(with = "time::serde::rfc2822")]
    date_created: OffsetDateTime,
    #[serde(with = "time::serde::rfc2822")]
    date_updated: OffsetDateTime,
    #[serde(with = "time::serde::rfc2822::option")]
    date_sent: Option<OffsetDateTime>,
}

/// The members that contain the message's id.
#[derive(Debug, Serialize)]
pub(super) struct ResourceIdentity {
    sid: String,
    uri: String,
    subresource_uris: SubresourceUris,
}

#[derive(Debug, Serialize)]
struct SubresourceUris {
    media: String,
}

/// A message for tests and for the inbox.
#[derive(Serialize)]
pub(super) struct InboxEntry<'a> {
    seq: u64,
    sid: String,
    account_sid: &'a str,
    to: &'a str,
    from: Option<&'a str>,
    messaging_service_sid: Option<&'a str>,
    body: &'a str,
    validity_period: u32,
    status_callback: Option<&'a str>,
    traceparent: Option<&'a str>,
    status: MessageStatus,
    #[serde(with = "time::serde::rfc3339")]
    received: OffsetDateTime,
}
