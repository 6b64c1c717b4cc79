//! The reply to an invite, as JSON: always the same bytes for the same outcome.

use crate::{
    refusal::Refusal,
    sessions::{Outcome, Sent},
};
use serde::Serialize;
use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};

const TO_THE_SECOND: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// A reply, ready to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// `sent`, `rejected` or `failed`.
    pub status: &'static str,
    /// The refusal's code, for logs.
    pub code: Option<&'static str>,
    pub body: Vec<u8>,
    /// Whether a row says the same.
    pub has_row: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SentBody<'a> {
    status: &'static str,
    session_key: &'a str,
    invitation_text: &'a str,
    session_id: uuid::Uuid,
    groupid: i64,
    sms_phone: &'a str,
    expires_at: String,
    provider_message_id: &'a str,
}

#[derive(Serialize)]
struct RefusedBody<'a> {
    status: &'static str,
    error: &'a Refusal,
}

impl Reply {
    /// What a row says.
    pub fn to(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Sent(sent) => Self::sent(sent),
            Outcome::Refused(refusal) => Self { has_row: true, ..Self::refused(refusal) },
        }
    }

    /// A refusal that leaves no row.
    pub fn refused(refusal: &Refusal) -> Self {
        let status = if refusal.code.is_failure() { "failed" } else { "rejected" };
        let body = RefusedBody { status, error: refusal };
        Self { status, code: Some(refusal.code.as_str()), body: to_json(&body), has_row: false }
    }

    fn sent(sent: &Sent) -> Self {
        let body = SentBody {
            status: "sent",
            session_key: &sent.session_key,
            invitation_text: &sent.invitation_text,
            session_id: sent.session_id,
            groupid: sent.group,
            sms_phone: &sent.phone,
            expires_at: to_the_second(sent.expires_at),
            provider_message_id: &sent.provider_message_id,
        };
        Self { status: "sent", code: None, body: to_json(&body), has_row: true }
    }

    /// AMQP's `type` of the reply.
    pub fn kind(&self) -> String {
        format!("invite.{}", self.status)
    }
}

/// RFC 3339 in UTC, to the second.
pub fn to_the_second(at: OffsetDateTime) -> String {
    // A date of PostgreSQL's range always formats.
    at.to_offset(time::UtcOffset::UTC).format(TO_THE_SECOND).unwrap_or_default()
}

fn to_json(body: &impl Serialize) -> Vec<u8> {
    // Structs of strings and numbers always serialize.
    serde_json::to_vec(body).unwrap_or_default()
}
