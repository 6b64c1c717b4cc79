//! A message that the sandbox accepted, and the resource that it shows of it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sms_provider::codes::{self, ErrorCode};
use sms_provider::segments::segments;
use time::OffsetDateTime;

/// A message is `queued` until this long after it was received, then `sent`.
pub(super) const SENT_AFTER: Duration = Duration::from_millis(100);
/// A message is `sent` until this long after it was received; then its receipt is there.
pub(super) const RECEIPT_AFTER: Duration = Duration::from_millis(300);

/// How messages end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Deliver {
    /// The carrier says that the text arrived.
    #[default]
    Delivered,
    /// The carrier says that it did not, with error 30003.
    Undelivered,
    /// The carrier says nothing: messages stay `sent`.
    None,
}

/// A message's status, by the provider's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// Queued by way of a messaging service.
    Accepted,
    Queued,
    Sent,
    Delivered,
    Undelivered,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Undelivered => "undelivered",
        }
    }

    /// Why a message did not arrive.
    pub fn error_code(self) -> Option<ErrorCode> {
        (self == Self::Undelivered).then_some(codes::HANDSET_UNREACHABLE)
    }
}

/// A message's id: `SM` and 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sid(pub u128);

impl Sid {
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("SM").filter(|digits| digits.len() == 32)?;
        let plain = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        u128::from_str_radix(digits, 16).ok().filter(|_| plain).map(Self)
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SM{:032x}", self.0)
    }
}

/// Who sends: a number, or a messaging service that picks one.
#[derive(PartialEq, Eq)]
pub(super) enum Sender {
    From(Box<str>),
    Service(Box<str>),
}

/// What a create asks for, once it has been checked.
pub(super) struct Draft {
    pub account_sid: Box<str>,
    pub to: Box<str>,
    pub sender: Sender,
    pub body: Box<str>,
    /// Seconds.
    pub validity_period: u32,
    pub status_callback: Option<Box<str>>,
    pub traceparent: Option<Box<str>>,
}

/// A message, as it was accepted. It never changes: its status is a function of the time.
pub(super) struct Message {
    /// Counts the messages of one run, from 1.
    pub seq: u64,
    pub sid: Sid,
    pub draft: Draft,
    pub received: OffsetDateTime,
    pub deliver: Deliver,
}

impl Message {
    pub fn from(&self) -> Option<&str> {
        match &self.draft.sender {
            Sender::From(number) => Some(number),
            Sender::Service(_) => None,
        }
    }

    fn service(&self) -> Option<&str> {
        match &self.draft.sender {
            Sender::From(_) => None,
            Sender::Service(sid) => Some(sid),
        }
    }

    pub fn status(&self, now: OffsetDateTime) -> Status {
        let age = now - self.received;
        match (&self.draft.sender, self.deliver) {
            (Sender::Service(_), _) if age < SENT_AFTER => Status::Accepted,
            (Sender::From(_), _) if age < SENT_AFTER => Status::Queued,
            (_, Deliver::Delivered) if age >= RECEIPT_AFTER => Status::Delivered,
            (_, Deliver::Undelivered) if age >= RECEIPT_AFTER => Status::Undelivered,
            _ => Status::Sent,
        }
    }

    /// The provider's message resource, as it stands at `now`.
    pub fn resource(&self, now: OffsetDateTime) -> Resource<'_> {
        let status = self.status(now);
        let uri = format!("/2010-04-01/Accounts/{}/Messages/{}.json", self.draft.account_sid, self.sid);
        let media = format!("{}/Media.json", uri.trim_end_matches(".json"));
        let sent = self.received + SENT_AFTER;
        let receipt = self.received + RECEIPT_AFTER;
        let (date_sent, date_updated) = match status {
            Status::Accepted | Status::Queued => (None, self.received),
            Status::Sent => (Some(sent), sent),
            Status::Delivered | Status::Undelivered => (Some(sent), receipt),
        };
        Resource {
            identity: Some(Identity { sid: self.sid.to_string(), uri, subresource_uris: Media { media } }),
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
    pub fn record(&self, now: OffsetDateTime) -> Record<'_> {
        Record {
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

/// The provider's JSON for a message: which members are strings, integers and nulls is Twilio's choice.
#[derive(Serialize)]
pub(super) struct Resource<'a> {
    /// `None` leaves out everything that tells the message's id.
    #[serde(flatten)]
    pub identity: Option<Identity>,
    body: &'a str,
    num_segments: String,
    num_media: &'static str,
    direction: &'static str,
    from: Option<&'a str>,
    to: &'a str,
    messaging_service_sid: Option<&'a str>,
    account_sid: &'a str,
    status: Status,
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

/// The members that tell a message's id.
#[derive(Debug, Serialize)]
pub(super) struct Identity {
    sid: String,
    uri: String,
    subresource_uris: Media,
}

#[derive(Debug, Serialize)]
struct Media {
    media: String,
}

/// A message for tests and for the inbox.
#[derive(Serialize)]
pub(super) struct Record<'a> {
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
    status: Status,
    #[serde(with = "time::serde::rfc3339")]
    received: OffsetDateTime,
}
