//! A row of `sessions` as it is written first: a session that begins, or a request that was refused.

use super::status::{Status, TextState};
use crate::{
    group_id::GroupId,
    masked::debug_shows,
    optouts::PhoneHashes,
    phone::PhoneNumber,
    rate_limit::RateLimit,
    refusal::Refusal,
    session_key::{SessionKey, Token},
    sms_text::SmsText,
    traceparent::TraceParent,
};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use uuid::Uuid;

/// What a row stores of its request, whose sender is authenticated.
#[derive(Clone)]
pub struct RequestRecord {
    /// The group of the caller.
    pub group: GroupId,
    /// The credential's type and user, such as `gkey:12345`.
    pub requested_by: String,
    /// The idempotency key.
    pub message_id: Option<String>,
    /// Copied into the reply.
    pub correlation_id: Option<String>,
    /// The queue for the reply.
    pub reply_to: Option<String>,
    /// When it was published, if it says so, by the publisher's clock.
    pub published: Option<SystemTime>,
    /// The trace that the session's events continue.
    pub traceparent: Option<TraceParent>,
    /// The invite's span, if it is traced.
    pub span: Option<TraceParent>,
    /// The message was published after this, by the process's monotonic clock.
    pub published_after: Option<Instant>,
    /// Of the request as it was published: equal for a redelivery, and for nothing else.
    pub request_sha256: [u8; 32],
    /// The broker delivered the request before.
    pub redelivered: bool,
    /// When this delivery came, by the process's monotonic clock.
    pub received: Instant,
    /// Until the invite is too old to be texted; `None` when its age is unknown and it sets no limit.
    pub deadline: Option<Duration>,
    /// Until the request's own expiration.
    pub own_limit: Option<Duration>,
    /// This and the following fields are the request's, as far as they could be read: a refused request may lack any.
    pub session_type: Option<i32>,
    /// The visitor, once the number was read.
    pub phone: Option<PhoneNumber>,
    /// Compact JSON.
    pub session_params: String,
}

debug_shows!(RequestRecord { group, redelivered, session_type });

impl RequestRecord {
    /// Of a request of which only the sender is known yet.
    pub fn new(group: GroupId, requested_by: String) -> Self {
        Self {
            group,
            requested_by,
            message_id: None,
            correlation_id: None,
            reply_to: None,
            published: None,
            traceparent: None,
            span: None,
            published_after: None,
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

/// A session that is to begin, as it was drawn. It does not if its key is taken, or its number has had its texts or has
/// opted out.
#[derive(Clone)]
pub(crate) struct NewSession {
    pub(crate) key: SessionKey,
    pub(crate) token: Token,
    pub(crate) text: SmsText,
    pub(crate) phone: PhoneNumber,
    pub(crate) ttl: Duration,
    /// The From number or messaging service.
    pub(crate) sender: Arc<str>,
    /// Of the number, among the opt-outs.
    pub(crate) hashes: PhoneHashes,
    /// Texts of the group to one number; `None` for no limit.
    pub(crate) per_number: Option<RateLimit>,
    pub(crate) first_step: FirstStep,
}

/// What a session begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstStep {
    Try,
    /// Its group is paused: the first try waits for the end of that.
    Wait,
}

debug_shows!(NewSession { ttl, sender });

/// A row to insert.
#[derive(Debug, Clone)]
pub(crate) struct NewRow {
    pub(super) id: Uuid,
    pub(super) request: RequestRecord,
    pub(super) owns_message_id: bool,
    pub(super) content: RowContent,
}

/// What a row is written for.
#[derive(Debug, Clone)]
pub(crate) enum RowContent {
    Session(NewSession),
    Refusal(Refusal),
}

impl NewRow {
    /// A session that begins, whose row answers for its message id.
    pub(crate) fn session(id: Uuid, request: &RequestRecord, session: &NewSession) -> Self {
        let content = RowContent::Session(session.clone());
        Self { id, request: request.clone(), owns_message_id: true, content }
    }

    /// A refused request, whose row answers for its message id.
    pub(crate) fn refusal(id: Uuid, request: &RequestRecord, refusal: &Refusal) -> Self {
        let content = RowContent::Refusal(refusal.clone());
        Self { id, request: request.clone(), owns_message_id: true, content }
    }

    pub(super) fn new_session(&self) -> Option<&NewSession> {
        match &self.content {
            RowContent::Session(session) => Some(session),
            RowContent::Refusal(_) => None,
        }
    }

    pub(super) fn refused_with(&self) -> Option<&Refusal> {
        match &self.content {
            RowContent::Session(_) => None,
            RowContent::Refusal(refusal) => Some(refusal),
        }
    }

    pub(super) fn status(&self) -> Status {
        self.refused_with().map_or(Status::Sending, Status::of_refusal)
    }

    /// The ledger of the text begins with the row, unless there is nothing to send. `looks_first` is whether the provider's
    /// list comes before the first try.
    pub(super) fn text_state(&self, looks_first: bool) -> Option<TextState> {
        self.new_session().map(|session| match session.first_step {
            _ if looks_first => TextState::Unknown,
            FirstStep::Try => TextState::Begun,
            FirstStep::Wait => TextState::Waiting,
        })
    }

    /// Whether the row is written without a claim, so that it decides itself what comes next.
    pub(super) fn waits(&self) -> bool {
        self.new_session().is_some_and(|session| session.first_step == FirstStep::Wait)
    }
}

/// What the database added to a row that was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InsertedRow {
    /// Before the statement was sent that wrote it.
    pub(super) begun: Instant,
    /// By the database's clock.
    pub(super) expires_at: Option<time::OffsetDateTime>,
    pub(super) ticket: Uuid,
    /// Whether the provider's list comes before the first try.
    pub(super) looks_first: bool,
}
