//! A claim on a session's text: the right to hand it over once, and to say what came of it (docs/DELIVERY.md).

use super::{
    InsertedRow, NewSession, Outcome, Permission, Recipient, RequestRecord, Resume, SentSession, SessionRow,
    Sessions, Status, TextState, Word, receipts,
    row::TextParts,
    statements::{self, ClaimTimes, LedgerEntry},
};
use crate::{
    db::{kinds, persist},
    group_id::GroupId,
    masked::debug_shows,
    phone::PhoneNumber,
    refusal::Refusal,
    session_key::SessionKey,
    sms_text::SmsText,
    trouble::Trouble,
};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use uuid::Uuid;

/// What a claim may take from its statement to the first byte on the provider's line. It is all that the worker's own
/// delays can be: a process that was stopped for longer finds its claim over, and sends nothing.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// A session that is claimed: its row is there, and its text is ours to hand over, once.
pub struct Claim {
    pub id: Uuid,
    pub group: GroupId,
    pub key: SessionKey,
    pub text: SmsText,
    pub phone: PhoneNumber,
    pub expires_at: OffsetDateTime,
    /// Tries that were begun, with this one.
    pub attempts: i32,
    /// Whether an earlier try may have been taken and was never looked for.
    pub unsettled: bool,
    /// Before the claim's statement was sent.
    begun: Instant,
    /// The claim's name.
    fence: i64,
    ticket: Uuid,
    ttl_left: Duration,
    deadline_left: Option<Duration>,
    own_limit_left: Option<Duration>,
}

debug_shows!(Claim { id, group, attempts });

/// What became of a claim on a session's text.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimResult {
    Accepted {
        provider_message_id: String,
    },
    /// Surely no text, and none to come.
    Refused(Refusal),
    /// A text may have gone out, and nobody will know.
    Unknown(Refusal),
    /// Surely not taken; to be handed over again after that.
    Waiting {
        after: Duration,
    },
    /// Perhaps taken. Nobody hands it over again in `rest`; it is looked at `again`.
    Unsure {
        rest: Duration,
        again: Duration,
    },
}

/// How the invite goes on once the result of a claim is recorded.
#[derive(Debug)]
pub enum Continuation {
    /// The invite has its outcome.
    Outcome(Outcome),
    /// It goes on later.
    Later(Resume),
    /// Another worker has claimed it since: the row says how it goes on.
    Lost,
}

impl Sessions {
    /// Claims a row for one more try, which is counted before it is made; `None` when another was faster, it is over, or
    /// the text may not be sent any more.
    pub async fn claim(&self, row: &SessionRow, to: &Recipient<'_>) -> Result<Option<Claim>, Trouble> {
        // Random, so that a claim whose commit a lost connection hid is known again.
        let fence = rand::random_range(1..=i64::MAX);
        let claim = || async {
            let mut connection = self.pool.acquire().await?;
            // The wait for a connection, and the tries before this one, take nothing from the claim's time.
            let begun = Instant::now();
            let claimed = statements::claim(&mut connection, row, to, fence, self.times).await?;
            Ok::<_, sqlx::Error>(claimed.map(|claimed| (begun, claimed)))
        };
        let Some((begun, claimed)) = persist(&kinds::CLAIM_SESSION, &self.stop, claim).await? else {
            return Ok(None);
        };
        let TextParts { key, text, phone, .. } = row.text_parts()?;
        let no_expiry = || Trouble::Defect("a session in hand has no expiry".to_owned());
        Ok(Some(Claim {
            id: row.id,
            group: row.group_id,
            key: key.clone(),
            text: text.clone(),
            phone: phone.clone(),
            expires_at: row.expires_at.ok_or_else(no_expiry)?,
            attempts: row.attempts + 1,
            unsettled: row.unsettled || row.unsure_unless_looked(),
            begun,
            fence,
            ticket: row.ticket,
            ttl_left: span(claimed.session_left),
            deadline_left: claimed.deadline.map(span),
            own_limit_left: claimed.own_limit.map(span),
        }))
    }

    /// Records what became of a claim, and says how the invite goes on.
    pub async fn record(&self, claim: Claim, result: ClaimResult) -> Result<Continuation, Trouble> {
        let entry = ledger_entry(claim.id, claim.fence, &result);
        let resume = |after| Resume { session: claim.id, ticket: claim.ticket, after };
        match (self.record.run(entry).await?, result) {
            (true, ClaimResult::Refused(refusal) | ClaimResult::Unknown(refusal)) => {
                Ok(Continuation::Outcome(Outcome::Refused(refusal)))
            }
            (true, ClaimResult::Accepted { provider_message_id }) => {
                Ok(Continuation::Outcome(Outcome::Sent(claim.sent(provider_message_id))))
            }
            (true, ClaimResult::Waiting { after }) => Ok(Continuation::Later(resume(after))),
            (true, ClaimResult::Unsure { again, .. }) => Ok(Continuation::Later(resume(again))),
            // A text was taken, whoever has claimed its row since: nobody may send it again.
            (false, ClaimResult::Accepted { provider_message_id }) => {
                self.accepted(claim.id, &provider_message_id).await?;
                Ok(Continuation::Lost)
            }
            (false, _) => Ok(Continuation::Lost),
        }
    }

    /// Ends an invite whose row nobody has a claim on. Whether it took is for the row to say.
    pub async fn close(&self, row: &SessionRow, result: &ClaimResult) -> Result<(), Trouble> {
        self.record.run(ledger_entry(row.id, row.fence, result)).await.map(drop)
    }

    /// The provider's own word that it accepted a session's text: from its list, or in an answer that came too late.
    pub async fn accepted(&self, id: Uuid, provider_message_id: &str) -> Result<(), Trouble> {
        let hear = || receipts::note(&self.pool, id, provider_message_id, Word::Taken);
        let heard = persist(&kinds::ACCEPTED, &self.stop, hear).await?;
        receipts::report(id, provider_message_id, &heard);
        Ok(())
    }

    /// Whether the row's text may be sent still: its group may have been switched off since it was written, and its
    /// visitor may have said STOP.
    pub async fn may_send(&self, row: &SessionRow, to: &Recipient<'_>) -> Result<Permission, Trouble> {
        let look = || statements::may_send(&self.pool, row, to);
        persist(&kinds::LOOK_AT_PERMISSION, &self.stop, look).await
    }

    /// A look at the provider's list has missed the text of the row's last try.
    pub async fn missed(&self, row: &SessionRow) -> Result<(), Trouble> {
        persist(&kinds::COUNT_LOOK, &self.stop, || statements::missed(&self.pool, row)).await
    }

    /// Those of the texts to the row's number that no other session has.
    pub async fn not_taken(&self, row: &SessionRow, mut texts: Vec<String>) -> Result<Vec<String>, Trouble> {
        if texts.is_empty() {
            return Ok(texts);
        }
        let phone = row.text_parts()?.phone;
        let find = || statements::taken_texts(&self.pool, row.id, phone, &texts);
        let taken = persist(&kinds::WHOSE_TEXTS, &self.stop, find).await?;
        texts.retain(|text| !taken.contains(text));
        Ok(texts)
    }
}

impl Claim {
    /// The claim that comes with a row's insert, which was asked for at `opened`.
    pub(super) fn of_new_row(
        id: Uuid,
        request: &RequestRecord,
        session: NewSession,
        opened: Instant,
        row: InsertedRow,
    ) -> Self {
        // The request's own limits count from when it was opened, and the database may have been away since.
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
            begun: row.begun,
            fence: 0,
            ticket: row.ticket,
            ttl_left: session.ttl,
            deadline_left: left(request.deadline),
            own_limit_left: left(request.own_limit),
        }
    }

    /// What is left for a text to be handed over: until its session is over, or its invite too old.
    pub fn left(&self) -> Duration {
        self.until(self.deadline_left)
    }

    /// For how long the text may still arrive: until its session is over, or its request's own expiration.
    pub fn validity(&self) -> Duration {
        self.until(self.own_limit_left)
    }

    fn until(&self, limit: Option<Duration>) -> Duration {
        limit.map_or(self.ttl_left, |left| left.min(self.ttl_left)).saturating_sub(self.begun.elapsed())
    }

    /// Until when, by this process's own clock, its text may be written to the provider's line: a request that begins
    /// by then has surely ended when the lease has. The clock does not stand still while the process is stopped.
    pub fn write_by(&self) -> Instant {
        self.begun + LEASE_MARGIN
    }

    /// One whose claim has just begun, for tests of what is decided by it.
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
            begun: Instant::now(),
            fence: 0,
            ticket: Uuid::nil(),
            ttl_left: left,
            deadline_left: None,
            own_limit_left: None,
        }
    }

    fn sent(self, provider_message_id: String) -> SentSession {
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

impl ClaimTimes {
    /// For requests that end within the provider's time-out, and a list that is right after `settle`.
    pub fn of(timeout: Duration, settle: Duration) -> Self {
        Self { ends: LEASE_MARGIN + timeout, settle }
    }
}

/// How the result of a claim is written down.
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
    LedgerEntry { id, fence, status, text_state, provider_message_id, refusal, rest }
}

pub(super) fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
