//! A claim on a session's text: the right to hand it over once, and to record the result (docs/DELIVERY.md).

use super::{
    claim_times::{LEASE_MARGIN, span},
    new_row::{InsertedRow, NewSession, RequestRecord},
    row::{Resume, SentSession, SessionRow, TextParts},
    statements::{ClaimLimits, LedgerEntry},
    status::{Status, TextState},
    steps::Step,
};
use crate::{
    group_id::GroupId, masked::debug_shows, phone::PhoneNumber, refusal::Refusal, session_key::SessionKey,
    sms_text::SmsText, traceparent::TraceParent, trouble::Trouble,
};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use uuid::Uuid;

/// A session that this worker has claimed: it may hand its text over, once.
pub(crate) struct Claim {
    pub(crate) id: Uuid,
    pub(crate) group: GroupId,
    pub(crate) key: SessionKey,
    pub(crate) text: SmsText,
    pub(crate) phone: PhoneNumber,
    pub(crate) expires_at: OffsetDateTime,
    /// Tries that were begun, including this one.
    pub(crate) attempts: i32,
    /// Whether the provider may have taken an earlier try that was never looked for.
    pub(crate) unsettled: bool,
    /// When the request was first delivered; of a row from an earlier delivery, when it was created.
    pub(crate) first_delivery: Instant,
    /// The invite's span, if it is traced.
    pub(crate) span: Option<TraceParent>,
    /// Before the claim's statement was sent.
    begun: Instant,
    /// The claim's number.
    fence: i64,
    ticket: Uuid,
    ttl_left: Duration,
    deadline_left: Option<Duration>,
    own_limit_left: Option<Duration>,
}

debug_shows!(Claim { id, group, attempts });

/// The result of a claim on a session's text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ClaimResult {
    Accepted {
        provider_message_id: String,
    },
    /// Surely no text, and none to come.
    Refused(Refusal),
    /// A text may have gone out, and nothing will show whether it did.
    Unknown(Refusal),
    /// Surely not taken; to be handed over again after that.
    Waiting {
        after: Duration,
    },
    /// Perhaps taken. No worker hands it over again within `rest`. After `again` one looks for it.
    Unsure {
        rest: Duration,
        again: Duration,
    },
}

impl Claim {
    /// The claim that comes with a row's insert, under the number 0, or that its own worker has renewed; `opened` is when
    /// the insert was first requested.
    pub(super) fn of_new_row(
        id: Uuid,
        request: &RequestRecord,
        session: NewSession,
        opened: Instant,
        (fence, row): (i64, InsertedRow),
    ) -> Self {
        // The request's own limits count from `opened`, and the database may have been away since.
        let waited = row.begun.saturating_duration_since(opened);
        let left = |limit: Option<Duration>| limit.map(|left| left.saturating_sub(waited));
        Self {
            id,
            group: request.group,
            key: session.key,
            text: session.text,
            phone: session.phone,
            expires_at: row.expires_at.unwrap_or_else(OffsetDateTime::now_utc),
            attempts: 1,
            unsettled: false,
            first_delivery: request.received,
            span: request.span,
            begun: row.begun,
            fence,
            ticket: row.ticket,
            ttl_left: session.ttl,
            deadline_left: left(request.deadline),
            own_limit_left: left(request.own_limit),
        }
    }

    /// The claim for one more try, whose statement was sent at `begun` and changed the row.
    ///
    /// # Errors
    ///
    /// A defect if the row lacks what an open invite has.
    pub(crate) fn of_row(
        row: &SessionRow,
        fence: i64,
        begun: Instant,
        limits: &ClaimLimits,
    ) -> Result<Self, Trouble> {
        let TextParts { key, text, phone, .. } = row.text_parts()?;
        let no_expiry = || Trouble::Defect("the session of an open invite has no expiry".to_owned());
        Ok(Self {
            id: row.id,
            group: row.group_id,
            key: key.clone(),
            text: text.clone(),
            phone: phone.clone(),
            expires_at: row.expires_at.ok_or_else(no_expiry)?,
            attempts: row.attempts + 1,
            unsettled: row.unsettled || row.may_have_been_taken(),
            first_delivery: begun.checked_sub(span(limits.age)).unwrap_or(begun),
            span: None,
            begun,
            fence,
            ticket: row.ticket,
            ttl_left: span(limits.session_left),
            deadline_left: limits.deadline.map(span),
            own_limit_left: limits.own_limit.map(span),
        })
    }

    /// How long the text may still be handed over: until its session is over, or its invite too old.
    pub(crate) fn left(&self) -> Duration {
        self.until(self.deadline_left)
    }

    /// How long the text may still arrive: until its session is over, or its request's own expiration.
    pub(crate) fn validity(&self) -> Duration {
        self.until(self.own_limit_left)
    }

    fn until(&self, limit: Option<Duration>) -> Duration {
        limit.map_or(self.ttl_left, |left| left.min(self.ttl_left)).saturating_sub(self.begun.elapsed())
    }

    /// Until when, by this process's own clock, the text may be written to the connection to the provider. A request that
    /// begins by then has surely ended when the lease has. The clock runs on while the process is stopped.
    pub(crate) fn write_by(&self) -> Instant {
        self.begun + LEASE_MARGIN
    }

    /// What a retry copy of the message carries, to continue with this row.
    pub(super) fn resume_after(&self, after: Duration) -> Resume {
        Resume { session: self.id, group: self.group, ticket: self.ticket, after }
    }

    /// What the row records of this claim's result.
    pub(super) fn ledger_entry(&self, result: &ClaimResult, step: Option<Step>) -> LedgerEntry {
        LedgerEntry { span: self.span, step, ..ledger_entry(self.id, self.fence, result) }
    }

    /// A claim that has just begun, for tests of what is decided by it.
    #[cfg(test)]
    pub(crate) fn claimed(attempts: i32, unsettled: bool, left: Duration) -> Self {
        Self {
            id: Uuid::nil(),
            group: GroupId::new(72).unwrap(),
            key: SessionKey::example(6),
            text: "code 123456".to_owned().into(),
            phone: PhoneNumber::from_e164("+11110000000").unwrap(),
            expires_at: OffsetDateTime::UNIX_EPOCH,
            attempts,
            unsettled,
            first_delivery: Instant::now(),
            span: None,
            begun: Instant::now(),
            fence: 0,
            ticket: Uuid::nil(),
            ttl_left: left,
            deadline_left: None,
            own_limit_left: None,
        }
    }

    pub(super) fn sent(self, provider_message_id: String) -> SentSession {
        SentSession {
            session_id: self.id,
            group: self.group,
            session_key: self.key,
            invitation_text: self.text,
            phone: self.phone,
            expires_at: self.expires_at,
            provider_message_id,
        }
    }
}

/// What the row records of a claim's result.
pub(crate) fn ledger_entry(id: Uuid, fence: i64, result: &ClaimResult) -> LedgerEntry {
    let (status, text_state, sid, refusal, rest) = match result {
        ClaimResult::Accepted { provider_message_id } => {
            (Status::Sent, TextState::Accepted, Some(provider_message_id), None, None)
        }
        ClaimResult::Unknown(refusal) => (Status::Unknown, TextState::Unknown, None, Some(refusal), None),
        ClaimResult::Refused(refusal) => {
            (Status::of_refusal(refusal), TextState::Refused, None, Some(refusal), None)
        }
        ClaimResult::Waiting { after } => (Status::Sending, TextState::Waiting, None, None, Some(*after)),
        ClaimResult::Unsure { rest, .. } => (Status::Sending, TextState::Unknown, None, None, Some(*rest)),
    };
    let (provider_message_id, refusal) = (sid.cloned(), refusal.cloned());
    LedgerEntry { id, fence, status, text_state, provider_message_id, refusal, rest, span: None, step: None }
}
