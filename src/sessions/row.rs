//! A row of `sessions` as it is written first, and as it is read back.

use crate::{group::GroupId, refusal::Refusal};
use sqlx::types::Json;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// What is known of a request whose sender is authenticated.
#[derive(Debug, Clone)]
pub struct About {
    pub group: GroupId,
    /// The credential's type and user, such as `gkey:12345`.
    pub requested_by: String,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    /// Of the request as it was published: equal for a redelivery, and for nothing else.
    pub request_sha256: [u8; 32],
    pub redelivered: bool,
}

/// What the request asks for, as far as it could be read.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub session_type: Option<i32>,
    /// E.164.
    pub phone: Option<String>,
    /// Compact JSON.
    pub session_params: String,
}

/// A row to insert: a session that is begun, or a request that was refused.
#[derive(Debug)]
pub struct NewRow {
    pub id: Uuid,
    pub about: About,
    pub asked: Asked,
    pub owns_message_id: bool,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Begun { key: String, token: String, text: String, ttl: Duration },
    Refused(Refusal),
}

impl NewRow {
    pub fn status(&self) -> &'static str {
        match &self.content {
            Content::Begun { .. } => "sending",
            Content::Refused(refusal) if refusal.code.is_failure() => "failed",
            Content::Refused(_) => "rejected",
        }
    }

    pub fn begun(&self) -> Option<(&str, &str, &str, Duration)> {
        match &self.content {
            Content::Begun { key, token, text, ttl } => Some((key, token, text, *ttl)),
            Content::Refused(_) => None,
        }
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.content {
            Content::Begun { .. } => None,
            Content::Refused(refusal) => Some(refusal),
        }
    }
}

/// When a row was written, and when its session expires, by the database's clock.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub expires_at: Option<OffsetDateTime>,
}

/// A row that is there already.
#[derive(Debug, sqlx::FromRow)]
pub struct Standing {
    pub id: Uuid,
    pub group_id: i64,
    pub status: String,
    pub session_key: Option<String>,
    pub session_type: Option<i32>,
    pub phone: Option<String>,
    pub invitation_text: Option<String>,
    pub provider_message_id: Option<String>,
    pub expires_at: Option<OffsetDateTime>,
    pub error: Option<Json<Refusal>>,
    pub request_sha256: Option<Vec<u8>>,
    /// Whether the request's parameters equal the row's, as JSON.
    pub same_params: bool,
    /// Whether the worker that began it has had its time.
    pub lease_over: bool,
}

impl Standing {
    /// The id is free for a new publish: surely no text went out.
    pub fn released_id(&self) -> bool {
        matches!(self.status.as_str(), "rejected" | "failed")
    }

    pub fn in_hand(&self) -> bool {
        self.status == "sending"
    }

    /// Whether it was written for a request that was the same to the byte.
    pub fn came_from(&self, request_sha256: &[u8; 32]) -> bool {
        self.request_sha256.as_deref() == Some(request_sha256)
    }

    /// The same request in the sense of the contract's section 8: the credential does not count.
    pub fn asks_the_same(&self, asked: &Asked) -> bool {
        self.session_type == asked.session_type && self.phone == asked.phone && self.same_params
    }

    /// What was answered, once the invite is finished.
    pub fn outcome(self) -> Option<Outcome> {
        if let Some(Json(refusal)) = self.error {
            return Some(Outcome::Refused(refusal));
        }
        if self.status == "sending" {
            return None;
        }
        Some(Outcome::Sent(Sent {
            session_id: self.id,
            group: self.group_id,
            session_key: self.session_key?,
            invitation_text: self.invitation_text?,
            phone: self.phone?,
            expires_at: self.expires_at?,
            provider_message_id: self.provider_message_id?,
        }))
    }
}

/// How an invite ended, as its reply says and as its row can say again.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Sent(Sent),
    Refused(Refusal),
}

/// A session whose text the provider has accepted.
#[derive(Clone, PartialEq)]
pub struct Sent {
    pub session_id: Uuid,
    pub group: i64,
    pub session_key: String,
    pub invitation_text: String,
    /// E.164.
    pub phone: String,
    pub expires_at: OffsetDateTime,
    pub provider_message_id: String,
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sent")
            .field("session_id", &self.session_id)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}
