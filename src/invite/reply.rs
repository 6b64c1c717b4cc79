//! The reply to an invite, as JSON: always the same bytes for the same outcome.

use crate::{
    masked::debug_shows,
    refusal::Refusal,
    sessions::{Outcome, SentSession, Status},
};
use serde::Serialize;
use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};
use utoipa::ToSchema;

const TO_THE_SECOND: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// A reply, ready to publish.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// `sent`, `rejected` or `failed`.
    pub status: &'static str,
    /// The refusal's code, for logs.
    pub code: Option<&'static str>,
    pub body: Vec<u8>,
    /// Whether a row says the same.
    pub has_row: bool,
}

debug_shows!(Reply { status, code });

/// The reply to a sent invite
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Sent, example = json!({
    "status": "sent", "sessionKey": "123456",
    "invitationText": "Join your session: https://invite.example/s/abcdefgh12345678 (code 123456)",
    "sessionId": "01a20b80-29bb-75db-be48-b9bc3223500c", "groupid": 72, "smsPhone": "+11110000000",
    "expiresAt": "2026-11-23T20:10:00Z", "providerMessageId": "SM0123456789abcdef0123456789abcdef",
}))]
#[expect(missing_debug_implementations, reason = "it holds a number and a text")]
pub struct SentBody<'a> {
    #[schema(value_type = String, pattern = "^sent$")]
    status: &'static str,
    /// What the agent joins with.
    #[schema(value_type = String, pattern = "^[0-9]{4,12}$")]
    session_key: &'a str,
    /// The text, as the provider got it.
    #[schema(value_type = String)]
    invitation_text: &'a str,
    session_id: uuid::Uuid,
    #[schema(minimum = 1)]
    groupid: i64,
    /// In E.164.
    #[schema(value_type = String, pattern = "^\\+[1-9][0-9]{1,14}$")]
    sms_phone: &'a str,
    /// When the session expires if nobody has joined.
    #[schema(format = "date-time")]
    expires_at: String,
    /// The provider's id of the text.
    #[schema(value_type = String)]
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
        let status = Status::of_refusal(refusal).as_str();
        let body = RefusedBody { status, error: refusal };
        Self { status, code: Some(refusal.code.as_str()), body: to_json(&body), has_row: false }
    }

    fn sent(sent: &SentSession) -> Self {
        let status = Status::Sent.as_str();
        let body = SentBody {
            status,
            session_key: sent.session_key.as_str(),
            invitation_text: sent.invitation_text.as_str(),
            session_id: sent.session_id,
            groupid: sent.group.get(),
            sms_phone: sent.phone.as_e164(),
            expires_at: to_the_second(sent.expires_at),
            provider_message_id: &sent.provider_message_id,
        };
        Self { status, code: None, body: to_json(&body), has_row: true }
    }

    /// Whether its sender has shown a credential that is good, or was.
    pub fn is_to_authenticated(&self) -> bool {
        let of_strangers = |code: &str| {
            matches!(code, "request_malformed" | "internal_error")
                || (code.starts_with("credential_") && code != "credential_expired")
        };
        self.has_row || !self.code.is_some_and(of_strangers)
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
