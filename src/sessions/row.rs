//! A row of `sessions` as it is written first, and as it is read back.

use super::{Fingerprints, gate::Gate};
use crate::masked::debug_shows;
use crate::{group_id::GroupId, refusal::Refusal};
use sqlx::types::Json;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use uuid::Uuid;

/// Looks that must have missed a text before it counts as absent (contract, section 6).
const LOOKS_THAT_MISS: i32 = 2;

/// What is known of a request whose sender is authenticated.
#[derive(Clone)]
pub struct About {
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
}

debug_shows!(About { group, redelivered });

/// What the request asks for, as far as it could be read.
#[derive(Clone, Default)]
pub struct Asked {
    pub session_type: Option<i32>,
    /// E.164.
    pub phone: Option<String>,
    /// Compact JSON.
    pub session_params: String,
}

debug_shows!(Asked { session_type });

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
    Begun(Begun),
    Refused(Refusal),
}

/// A session that is to begin, unless its gate is closed.
pub struct Begun {
    pub key: String,
    pub token: String,
    pub text: String,
    pub ttl: Duration,
    pub gate: Gate,
}

debug_shows!(Begun { ttl });

impl NewRow {
    pub fn status(&self) -> &'static str {
        match &self.content {
            Content::Begun(_) => "sending",
            Content::Refused(refusal) if refusal.code.is_failure() => "failed",
            Content::Refused(_) => "rejected",
        }
    }

    pub fn begun(&self) -> Option<&Begun> {
        match &self.content {
            Content::Begun(begun) => Some(begun),
            Content::Refused(_) => None,
        }
    }

    /// The ledger begins with the row, unless there is nothing to send.
    pub fn text_state(&self) -> Option<&'static str> {
        matches!(self.content, Content::Begun(_)).then_some("begun")
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.content {
            Content::Begun(_) => None,
            Content::Refused(refusal) => Some(refusal),
        }
    }
}

/// What the database made of a row that was written.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Before the statement was sent that wrote it.
    pub begun: Instant,
    /// By the database's clock.
    pub expires_at: Option<OffsetDateTime>,
    pub ticket: Uuid,
}

/// A row that is there already. Spans are seconds by the database's clock, counted from when it was read.
#[derive(sqlx::FromRow)]
pub struct Standing {
    pub id: Uuid,
    pub group_id: i64,
    pub status: String,
    pub text_state: Option<String>,
    pub fence: i64,
    pub ticket: Uuid,
    pub attempts: i32,
    pub looks: i32,
    pub unsettled: bool,
    pub abandoned: i32,
    pub session_key: Option<String>,
    pub token: Option<String>,
    pub session_type: Option<i32>,
    pub phone: Option<String>,
    pub invitation_text: Option<String>,
    pub provider_message_id: Option<String>,
    pub created_at: OffsetDateTime,
    pub expires_at: Option<OffsetDateTime>,
    pub error: Option<Json<Refusal>>,
    pub request_sha256: Option<Vec<u8>>,
    /// Whether the request's parameters equal the row's, as JSON.
    pub same_params: bool,
    /// Whether what names a person was taken out of it.
    pub blanked: bool,
    /// What stands for the content of a blanked row; `None` where a release before there was one has blanked it.
    pub content_hash: Option<Vec<u8>>,
    /// The request's parameters as PostgreSQL writes them, where the row is blanked.
    pub asked_params: Option<String>,
    /// When this was read, by the database's clock.
    pub read_at: OffsetDateTime,
    /// Since it was written.
    pub age: f64,
    /// Until the text may be handed over by another; negative when that is over.
    pub lease_left: f64,
    /// Since the last try has surely ended; negative while it may be under way.
    pub unsure_for: f64,
    /// Since the last look that missed.
    pub looked_ago: Option<f64>,
    pub session_left: f64,
    /// Until the invite is too old; `None` when only its session's end bounds it.
    pub deadline_left: Option<f64>,
}

debug_shows!(Standing { id, group_id, status, text_state, attempts });

impl Standing {
    /// The id is free for a new publish: surely no text went out. One that an agent had joined by then is joined or ended.
    pub fn released_id(&self) -> bool {
        matches!(self.status.as_str(), "rejected" | "failed") || self.text_state.as_deref() == Some("refused")
    }

    pub fn in_hand(&self) -> bool {
        self.status == "sending"
    }

    /// Whether it was written for a request that was the same to the byte.
    pub fn came_from(&self, request_sha256: &[u8; 32]) -> bool {
        self.request_sha256.as_deref() == Some(request_sha256)
    }

    /// The row, if this is its request in the sense of the contract's section 8: the credential does not count. To a
    /// blanked row the request brings back its number; the text is lost.
    pub fn asked_for_by(mut self, asked: &Asked, fingerprints: &Fingerprints) -> Option<Self> {
        if !self.blanked {
            let same =
                self.session_type == asked.session_type && self.phone == asked.phone && self.same_params;
            return same.then_some(self);
        }
        let params = self.asked_params.as_deref().unwrap_or_default();
        let hash = fingerprints.of(asked.session_type, asked.phone.as_deref(), params);
        // Without a hash nobody can say: rather no text than two, and its sender is told what became of the first.
        if self.content_hash.as_deref().is_some_and(|stored| stored != hash) {
            return None;
        }
        self.phone.clone_from(&asked.phone);
        self.invitation_text = Some(String::new());
        Some(self)
    }

    /// Whether it can say how its invite ended, or will: one that is blanked cannot.
    pub fn is_told(&self) -> bool {
        self.in_hand() || self.outcome().is_some()
    }

    /// What was answered, once the invite is finished.
    pub fn outcome(&self) -> Option<Outcome> {
        if let Some(Json(refusal)) = &self.error {
            return Some(Outcome::Refused(refusal.clone()));
        }
        if self.in_hand() {
            return None;
        }
        Some(Outcome::Sent(Sent {
            session_id: self.id,
            group: self.group_id,
            session_key: self.session_key.clone()?,
            invitation_text: self.invitation_text.clone()?,
            phone: self.phone.clone()?,
            expires_at: self.expires_at?,
            provider_message_id: self.provider_message_id.clone()?,
        }))
    }

    /// Whether it is as its own worker wrote it, and within that worker's time.
    pub fn is_untouched(&self) -> bool {
        self.in_hand()
            && self.fence == 0
            && self.unsure_for < 0.0
            && self.text_state.as_deref() == Some("begun")
    }

    /// Whether the worker of the last try died with it, or has yet to say what came of it.
    pub fn is_abandoned(&self) -> bool {
        matches!(self.text_state.as_deref(), None | Some("begun"))
    }

    /// Whether the text of the last try is surely not there: two looks missed it, the last of them when the provider's
    /// list had had its time to settle.
    pub fn is_absent(&self) -> bool {
        self.looks >= LOOKS_THAT_MISS && self.looked_ago.is_some_and(|ago| ago + self.lease_left <= 0.0)
    }

    /// Whether the last try may have been taken, and was not looked for.
    pub fn unsure_unless_looked(&self) -> bool {
        self.text_state.as_deref() != Some("waiting") && !self.is_absent()
    }

    /// Whether the invite is too old to be texted.
    pub fn is_late(&self) -> bool {
        self.deadline_left.is_some_and(|left| left <= 0.0)
    }

    /// Until nothing more may be texted for it: its session is over, or its invite too old.
    pub fn time_left(&self) -> Duration {
        let left = self.deadline_left.map_or(self.session_left, |left| left.min(self.session_left));
        Duration::try_from_secs_f64(left).unwrap_or_default()
    }

    /// What a copy of its message carries, so that whoever gets that goes on here.
    pub fn resume_after(&self, after: Duration) -> Resume {
        Resume { session: self.id, ticket: self.ticket, after }
    }
}

/// An invite that goes on later: its message comes again by way of a retry queue, and finds its row by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    pub session: Uuid,
    /// `sessions.ticket`.
    pub ticket: Uuid,
    pub after: Duration,
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
