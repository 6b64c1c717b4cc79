//! A row of `sessions` as it is read back, and what it says of its invite.

use super::{Fingerprints, RequestRecord, Status, TextState};
use crate::{
    group_id::GroupId,
    masked::debug_shows,
    phone::PhoneNumber,
    refusal::Refusal,
    session_key::{SessionKey, Token},
    sms_text::SmsText,
    trouble::Trouble,
};
use sqlx::types::Json;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// Looks that must have missed a text before it counts as absent (contract, section 6).
const LOOKS_THAT_MISS: i32 = 2;

/// A row that is there already. Spans are seconds by the database's clock, counted from when it was read.
pub struct SessionRow {
    pub id: Uuid,
    pub group_id: GroupId,
    pub status: Status,
    pub text_state: Option<TextState>,
    pub fence: i64,
    pub ticket: Uuid,
    pub attempts: i32,
    pub looks: i32,
    pub unsettled: bool,
    pub abandoned: i32,
    pub session_key: Option<SessionKey>,
    pub token: Option<Token>,
    pub session_type: Option<i32>,
    pub phone: Option<PhoneNumber>,
    pub invitation_text: Option<SmsText>,
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

debug_shows!(SessionRow { id, group_id, status, text_state, attempts });

/// A session's text, and whom it is for: all there while the invite is in hand.
#[derive(Debug)]
pub struct TextParts<'a> {
    pub key: &'a SessionKey,
    pub token: &'a Token,
    pub text: &'a SmsText,
    pub phone: &'a PhoneNumber,
}

impl SessionRow {
    /// What there is to hand over, or to look for.
    ///
    /// # Errors
    ///
    /// A defect, of a row that is not in hand any more.
    pub fn text_parts(&self) -> Result<TextParts<'_>, Trouble> {
        fn there<'a, T>(value: Option<&'a T>, what: &str) -> Result<&'a T, Trouble> {
            value.ok_or_else(|| Trouble::Defect(format!("a session in hand has no {what}")))
        }
        Ok(TextParts {
            key: there(self.session_key.as_ref(), "key")?,
            token: there(self.token.as_ref(), "token")?,
            text: there(self.invitation_text.as_ref(), "text")?,
            phone: there(self.phone.as_ref(), "phone")?,
        })
    }

    /// The id is free for a new publish: surely no text went out. One that an agent had joined by then is joined or ended.
    pub fn released_id(&self) -> bool {
        matches!(self.status, Status::Rejected | Status::Failed)
            || self.text_state == Some(TextState::Refused)
    }

    pub fn in_hand(&self) -> bool {
        self.status == Status::Sending
    }

    /// Whether it was written for a request that was the same to the byte.
    pub fn came_from(&self, request_sha256: &[u8; 32]) -> bool {
        self.request_sha256.as_deref() == Some(request_sha256)
    }

    /// The row, if this is its request in the sense of the contract's section 8: the credential does not count. To a
    /// blanked row the request brings back its number; the text is lost.
    pub fn asked_for_by(mut self, request: &RequestRecord, fingerprints: &Fingerprints) -> Option<Self> {
        if !self.blanked {
            let same =
                self.session_type == request.session_type && self.phone == request.phone && self.same_params;
            return same.then_some(self);
        }
        let params = self.asked_params.as_deref().unwrap_or_default();
        let phone = request.phone.as_ref().map(PhoneNumber::as_e164);
        let hash = fingerprints.of(request.session_type, phone, params);
        // Without a hash nobody can say: rather no text than two, and its sender is told what became of the first.
        if self.content_hash.as_deref().is_some_and(|stored| stored != hash) {
            return None;
        }
        self.phone.clone_from(&request.phone);
        self.invitation_text = Some(SmsText::LOST);
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
        Some(Outcome::Sent(SentSession {
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
            && self.text_state == Some(TextState::Begun)
    }

    /// Whether the worker of the last try died with it, or has yet to say what came of it.
    pub fn is_abandoned(&self) -> bool {
        matches!(self.text_state, None | Some(TextState::Begun))
    }

    /// Whether the provider surely did not take the last try, which is to be made again.
    pub fn is_waiting(&self) -> bool {
        self.text_state == Some(TextState::Waiting)
    }

    /// Whether the text of the last try is surely not there: two looks missed it, the last of them when the provider's
    /// list had had its time to settle.
    pub fn is_absent(&self) -> bool {
        self.looks >= LOOKS_THAT_MISS && self.looked_ago.is_some_and(|ago| ago + self.lease_left <= 0.0)
    }

    /// Whether the last try may have been taken, and was not looked for.
    pub fn unsure_unless_looked(&self) -> bool {
        !self.is_waiting() && !self.is_absent()
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
    Sent(SentSession),
    Refused(Refusal),
}

/// A session whose text the provider has accepted.
#[derive(Clone, PartialEq)]
pub struct SentSession {
    pub session_id: Uuid,
    pub group: GroupId,
    pub session_key: SessionKey,
    pub invitation_text: SmsText,
    pub phone: PhoneNumber,
    pub expires_at: OffsetDateTime,
    pub provider_message_id: String,
}

debug_shows!(SentSession { session_id, group });
