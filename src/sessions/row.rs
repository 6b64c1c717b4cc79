//! A row of `sessions` as it is read, and what it shows of its invite.

use super::{
    content_hash::ContentHasher,
    new_row::RequestRecord,
    status::{Status, TextState},
};
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

/// A row that exists. Spans are seconds by the database's clock, counted from when it was read.
pub(crate) struct SessionRow {
    pub(crate) id: Uuid,
    pub(crate) group_id: GroupId,
    pub(crate) status: Status,
    pub(crate) text_state: Option<TextState>,
    pub(crate) fence: i64,
    pub(crate) ticket: Uuid,
    pub(crate) attempts: i32,
    pub(crate) looks: i32,
    pub(crate) unsettled: bool,
    pub(crate) abandoned: i32,
    pub(crate) session_key: Option<SessionKey>,
    pub(crate) token: Option<Token>,
    pub(crate) session_type: Option<i32>,
    pub(crate) phone: Option<PhoneNumber>,
    pub(crate) invitation_text: Option<SmsText>,
    pub(crate) provider_message_id: Option<String>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) expires_at: Option<OffsetDateTime>,
    /// The database has lost rows: any text to the number since then that no row owns may be this invite's.
    pub(crate) look_since: Option<OffsetDateTime>,
    pub(crate) error: Option<Json<Refusal>>,
    pub(crate) request_sha256: Option<Vec<u8>>,
    /// Whether the request's parameters equal the row's, as JSON.
    pub(crate) same_params: bool,
    /// Whether the values that name a person were removed.
    pub(crate) blanked: bool,
    /// The hash of a blanked row's content; `None` if a release without such hashes blanked it.
    pub(crate) content_hash: Option<Vec<u8>>,
    /// The request's parameters as PostgreSQL writes them, if the row is blanked.
    pub(crate) request_params: Option<String>,
    /// When this was read, by the database's clock.
    pub(crate) read_at: OffsetDateTime,
    /// Since it was written.
    pub(crate) age: f64,
    /// Until another worker may hand the text over; negative when that is over.
    pub(crate) lease_left: f64,
    /// Since the last try has surely ended; negative while it may be under way.
    pub(crate) unsure_for: f64,
    /// Since the last look that missed.
    pub(crate) looked_ago: Option<f64>,
    pub(crate) session_left: f64,
    /// Until the invite is too old; `None` when only its session's end bounds it.
    pub(crate) deadline_left: Option<f64>,
}

debug_shows!(SessionRow { id, group_id, status, text_state, attempts });

/// What a text needs. A row has all of it while it is `sending`.
#[derive(Debug)]
pub(crate) struct TextParts<'a> {
    pub(crate) key: &'a SessionKey,
    pub(crate) token: &'a Token,
    pub(crate) text: &'a SmsText,
    pub(crate) phone: &'a PhoneNumber,
}

impl SessionRow {
    /// What to hand over, or to look for.
    ///
    /// # Errors
    ///
    /// A defect if a part is missing.
    pub(crate) fn text_parts(&self) -> Result<TextParts<'_>, Trouble> {
        fn present<'a, T>(value: Option<&'a T>, what: &str) -> Result<&'a T, Trouble> {
            value.ok_or_else(|| Trouble::Defect(format!("the session of an open invite has no {what}")))
        }
        Ok(TextParts {
            key: present(self.session_key.as_ref(), "key")?,
            token: present(self.token.as_ref(), "token")?,
            text: present(self.invitation_text.as_ref(), "text")?,
            phone: present(self.phone.as_ref(), "phone")?,
        })
    }

    /// Whether the message id is free for a new publish: surely no text went out. A session that an agent had joined by then
    /// is joined or ended.
    pub(super) fn frees_message_id(&self) -> bool {
        matches!(self.status, Status::Rejected | Status::Failed)
            || self.text_state == Some(TextState::Refused)
    }

    /// Whether the invite has no outcome yet.
    pub(crate) fn is_sending(&self) -> bool {
        self.status == Status::Sending
    }

    /// Whether it was written for a request with the same bytes.
    pub(super) fn came_from(&self, request_sha256: &[u8; 32]) -> bool {
        self.request_sha256.as_deref() == Some(request_sha256)
    }

    /// The row, if the request repeats its content (contract, section 8); the credential does not count. A blanked row gets
    /// its number back from the request; its text is lost.
    pub(super) fn if_same_content(mut self, request: &RequestRecord, hasher: &ContentHasher) -> Option<Self> {
        if !self.blanked {
            let same =
                self.session_type == request.session_type && self.phone == request.phone && self.same_params;
            return same.then_some(self);
        }
        let params = self.request_params.as_deref().unwrap_or_default();
        let phone = request.phone.as_ref().map(PhoneNumber::as_e164);
        let hash = hasher.hash(request.session_type, phone, params);
        // A row without a hash repeats any content: no text is better than two, and its sender gets the first one's outcome.
        if self.content_hash.as_deref().is_some_and(|stored| stored != hash) {
            return None;
        }
        self.phone.clone_from(&request.phone);
        self.invitation_text = Some(SmsText::LOST);
        Some(self)
    }

    /// Whether it has or will have an outcome that a reply can be made of; a blanked row has none.
    pub(super) fn is_answerable(&self) -> bool {
        self.is_sending() || self.outcome().is_some()
    }

    /// The invite's outcome, once it has one.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        if let Some(Json(refusal)) = &self.error {
            return Some(Outcome::Refused(refusal.clone()));
        }
        if self.is_sending() {
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
    pub(super) fn is_untouched(&self) -> bool {
        self.is_sending()
            && self.fence == 0
            && self.unsure_for < 0.0
            && self.text_state == Some(TextState::Begun)
    }

    /// Whether the last try has no result: its worker died, or has not recorded it yet.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(self.text_state, None | Some(TextState::Begun))
    }

    /// Whether the provider surely did not take the last try, which is to be made again.
    pub(crate) fn is_waiting(&self) -> bool {
        self.text_state == Some(TextState::Waiting)
    }

    /// Whether the text of the last try is surely not there: two looks missed it, the last of them after the provider's
    /// list had time to settle.
    pub(crate) fn is_absent(&self) -> bool {
        self.looks >= LOOKS_THAT_MISS && self.looked_ago.is_some_and(|ago| ago + self.lease_left <= 0.0)
    }

    /// Whether the provider may have taken the last try, as far as the row shows.
    pub(crate) fn may_have_been_taken(&self) -> bool {
        !self.is_waiting() && !self.is_absent()
    }

    /// Whether the invite is too old to be texted.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline_left.is_some_and(|left| left <= 0.0)
    }

    /// How long it may still be texted: until its session is over, or its invite too old.
    pub(crate) fn time_left(&self) -> Duration {
        let left = self.deadline_left.map_or(self.session_left, |left| left.min(self.session_left));
        Duration::try_from_secs_f64(left).unwrap_or_default()
    }

    /// What a retry copy of the message carries, so that the worker that receives it continues with this row.
    pub(crate) fn resume_after(&self, after: Duration) -> Resume {
        Resume { session: self.id, group: self.group_id, ticket: self.ticket, after }
    }
}

/// An invite that continues later: its message comes again through a retry queue, and finds its row by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    pub session: Uuid,
    pub group: GroupId,
    /// `sessions.ticket`.
    pub ticket: Uuid,
    pub after: Duration,
}

/// How an invite ended. Its reply is made of this, and its row can give it again.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The provider accepted the text.
    Sent(SentSession),
    /// There is no session, and why.
    Refused(Refusal),
}

/// A session whose text the provider has accepted.
#[derive(Clone, PartialEq)]
pub struct SentSession {
    /// The key of the row.
    pub session_id: Uuid,
    /// The group of the caller.
    pub group: GroupId,
    /// With it an agent joins.
    pub session_key: SessionKey,
    /// The text that the visitor got.
    pub invitation_text: SmsText,
    /// The visitor.
    pub phone: PhoneNumber,
    /// When the session ends unless it is joined.
    pub expires_at: OffsetDateTime,
    /// The provider's id of the text.
    pub provider_message_id: String,
}

debug_shows!(SentSession { session_id, group });
