//! A row of the table `sessions`, with a type for each column. A column or a status that is not here fails the test.

use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

/// `sessions.status` (contract, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    Sending,
    Sent,
    Delivered,
    Undelivered,
    Unknown,
    Joined,
    Expired,
    Ended,
    Rejected,
    Failed,
}

/// `sessions.text_state` (docs/DELIVERY.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextState {
    Begun,
    Waiting,
    Unknown,
    Accepted,
    Refused,
}

/// All columns, in the table's order. Times and bytes are as PostgreSQL writes them in JSON.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the table has these columns")]
pub struct SessionRow {
    pub id: Uuid,
    pub group_id: u64,
    pub session_key: Option<String>,
    pub status: SessionStatus,
    pub session_type: Option<i16>,
    pub session_params: Map<String, Value>,
    pub phone: Option<String>,
    pub invitation_text: Option<String>,
    pub token: Option<String>,
    pub requested_by: String,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    pub attempts: u64,
    pub provider_message_id: Option<String>,
    pub error_code: Option<String>,
    pub error: Option<Value>,
    pub request_sha256: Option<String>,
    pub key_held: bool,
    pub owns_message_id: bool,
    pub acknowledged: bool,
    pub lease_until: Option<String>,
    pub due_at: Option<String>,
    pub created_at: String,
    pub sent_at: Option<String>,
    pub delivered_at: Option<String>,
    pub joined_at: Option<String>,
    pub ended_at: Option<String>,
    pub expires_at: Option<String>,
    pub updated_at: String,
    pub text_state: Option<TextState>,
    pub fence: u64,
    pub ticket: Option<Uuid>,
    pub unsure_from: Option<String>,
    pub looks: u32,
    pub looked_at: Option<String>,
    pub unsettled: bool,
    pub abandoned: u32,
    pub deadline_at: Option<String>,
    pub valid_until: Option<String>,
    pub blanked: bool,
    pub undelivered_at: Option<String>,
    pub content_hash: Option<String>,
    pub reply_to: Option<String>,
    pub look_since: Option<String>,
    pub resume_at: Option<String>,
    pub published_at: Option<String>,
    pub traceparent: Option<String>,
}

impl SessionRow {
    /// The key of a session that has one.
    #[track_caller]
    pub fn key(&self) -> &str {
        self.session_key.as_deref().expect("the session has a key")
    }

    /// The token in the link of a text that was handed to the provider.
    #[track_caller]
    pub fn token(&self) -> &str {
        self.token.as_deref().expect("the session has a token")
    }

    /// The provider's id of a text that it accepted.
    #[track_caller]
    pub fn sid(&self) -> &str {
        self.provider_message_id.as_deref().expect("the provider accepted the text")
    }

    pub fn error_code(&self) -> Option<&str> {
        self.error_code.as_deref()
    }
}
