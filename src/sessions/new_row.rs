//! A row of `sessions` as it is written first: a session that begins, or a request that was refused.

use super::{Status, TextState};
use crate::{
    group_id::GroupId,
    masked::debug_shows,
    optouts::Hashes,
    phone::PhoneNumber,
    rate_limit::RateLimit,
    refusal::Refusal,
    session_key::{SessionKey, Token},
    sms_text::SmsText,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// What a row says of its request, whose sender is authenticated.
#[derive(Clone)]
pub struct RequestRecord {
    pub group: GroupId,
    /// The credential's type and user, such as `gkey:12345`.
    pub requested_by: String,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    /// Of the request as it was published: equal for a redelivery, and for nothing else.
    pub request_sha256: [u8; 32],
    pub redelivered: bool,
    /// When this delivery came, by the process's monotonic clock.
    pub received: Instant,
    /// Until the invite is too old to be texted; `None` when its age is unknown and it sets no limit.
    pub deadline: Option<Duration>,
    /// Until the request's own expiration.
    pub own_limit: Option<Duration>,
    /// From here on, what it asks for, as far as it could be read: a request that is refused may lack any of it.
    pub session_type: Option<i32>,
    pub phone: Option<PhoneNumber>,
    /// Compact JSON.
    pub session_params: String,
}

debug_shows!(RequestRecord { group, redelivered, session_type });

impl RequestRecord {
    /// Of a request of which nothing is known yet but who asks.
    pub fn new(group: GroupId, requested_by: String) -> Self {
        Self {
            group,
            requested_by,
            message_id: None,
            correlation_id: None,
            request_sha256: [0; 32],
            redelivered: false,
            received: Instant::now(),
            deadline: None,
            own_limit: None,
            session_type: None,
            phone: None,
            session_params: "{}".to_owned(),
        }
    }
}

/// A session that is to begin, as it was drawn: unless its key is taken, its number has had its texts, or wants none.
#[derive(Clone)]
pub struct NewSession {
    pub key: SessionKey,
    pub token: Token,
    pub text: SmsText,
    pub phone: PhoneNumber,
    pub ttl: Duration,
    /// Whom the text comes from.
    pub sender: Arc<str>,
    /// What stands for the number among the opt-outs.
    pub hashes: Hashes,
    /// Texts of the group to one number; `None` for no limit.
    pub per_number: Option<RateLimit>,
}

debug_shows!(NewSession { ttl, sender });

/// A row to insert.
#[derive(Debug)]
pub struct NewRow {
    pub id: Uuid,
    pub request: RequestRecord,
    pub owns_message_id: bool,
    pub content: Result<NewSession, Refusal>,
}

impl NewRow {
    pub fn session(&self) -> Option<&NewSession> {
        self.content.as_ref().ok()
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        self.content.as_ref().err()
    }

    pub fn status(&self) -> Status {
        match &self.content {
            Ok(_) => Status::Sending,
            Err(refusal) => Status::of_refusal(refusal),
        }
    }

    /// The ledger of the text begins with the row, unless there is nothing to send.
    pub fn text_state(&self) -> Option<TextState> {
        self.session().map(|_| TextState::Begun)
    }
}

/// What the database made of a row that was written.
#[derive(Debug, Clone, Copy)]
pub struct InsertedRow {
    /// Before the statement was sent that wrote it.
    pub begun: Instant,
    /// By the database's clock.
    pub expires_at: Option<time::OffsetDateTime>,
    pub ticket: Uuid,
}
