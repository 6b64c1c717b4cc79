//! The reply to an invite, as JSON: always the same bytes for the same outcome.

use crate::{
    group_id::GroupId,
    masked::debug_shows,
    refusal::{Code, Refusal},
    sessions::{Outcome, SentSession, Status},
};
use serde::Serialize;
use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};
use utoipa::ToSchema;
use uuid::Uuid;

const TO_THE_SECOND: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// A reply, ready to publish.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// `sent`, `rejected` or `failed`.
    pub status: &'static str,
    /// The refusal's code, for logs.
    pub code: Option<&'static str>,
    /// JSON.
    pub body: Vec<u8>,
    /// Whether the outcome is stored in a row.
    pub has_row: bool,
    /// The group of an authenticated sender, for logs.
    pub group: Option<GroupId>,
    /// The session of a sent invite, for logs.
    pub session: Option<Uuid>,
    /// The refusal's message, for logs.
    pub why: Option<Box<str>>,
}

debug_shows!(Reply { status, code, group, session });

/// The reply to a sent invite
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Sent, example = json!({
    "status": "sent", "sessionKey": "123456",
    "invitationText": "Join your session: https://invite.example/s/abcdefgh12345678 (code 123456)",
    "sessionId": "01a20b80-29bb-75db-be48-b9bc3223500c", "groupid": 72, "smsPhone": "+11110000000",
    "expiresAt": "2026-11-23T20:10:00Z", "providerMessageId": "SM0123456789abcdef0123456789abcdef",
}))]
pub(crate) struct SentBody<'a> {
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
    /// The status of a reply that brings a session.
    pub(crate) const SENT: &str = "sent";

    /// The status of a reply with this code.
    pub(crate) fn status_of(code: Code) -> &'static str {
        Status::of_code(code).as_str()
    }

    /// The reply for the outcome of a row.
    pub fn to(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Sent(sent) => Self::sent(sent),
            Outcome::Refused(refusal) => Self { has_row: true, ..Self::refused(refusal) },
        }
    }

    /// The reply for a refusal that leaves no row.
    pub fn refused(refusal: &Refusal) -> Self {
        let status = Status::of_refusal(refusal).as_str();
        let body = RefusedBody { status, error: refusal };
        Self {
            status,
            code: Some(refusal.code.as_str()),
            body: to_json(&body),
            has_row: false,
            group: None,
            session: None,
            why: Some(refusal.message.as_str().into()),
        }
    }

    /// Adds the group of an authenticated sender.
    #[must_use]
    pub(crate) fn of_group(self, group: GroupId) -> Self {
        Self { group: Some(group), ..self }
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
        Self {
            status,
            code: None,
            body: to_json(&body),
            has_row: true,
            group: Some(sent.group),
            session: Some(sent.session_id),
            why: None,
        }
    }

    /// Whether the sender has shown a credential that is good, or has expired.
    pub fn is_to_authenticated_sender(&self) -> bool {
        let is_for_strangers = |code: &str| {
            // Of a request without a row, only a retry copy is answered with `outcome_unknown`, and anyone can write one.
            matches!(code, "request_malformed" | "internal_error" | "outcome_unknown")
                || (code.starts_with("credential_") && code != "credential_expired")
        };
        self.has_row || !self.code.is_some_and(is_for_strangers)
    }

    /// The reply's AMQP property `type`.
    pub fn kind(&self) -> String {
        format!("invite.{}", self.status)
    }
}

/// RFC 3339 in UTC, to the second.
pub(crate) fn to_the_second(at: OffsetDateTime) -> String {
    // Every date that PostgreSQL can store formats. Others may have no UTC, as the last of the year 9999 in the west.
    let utc = at.checked_to_offset(time::UtcOffset::UTC);
    utc.and_then(|at| at.format(TO_THE_SECOND).ok()).unwrap_or_default()
}

fn to_json(body: &impl Serialize) -> Vec<u8> {
    // Structs of strings and numbers always serialize.
    serde_json::to_vec(body).unwrap_or_default()
}
