//! The ledger of a session's text: claims on it, their results, and what the provider's list shows (docs/DELIVERY.md).

use super::{
    claim::{Claim, ClaimResult, ledger_entry},
    new_row::InsertedRow,
    permission::{Recipient, SendPermission},
    receipts::{self, TextReport},
    row::{Outcome, Resume, SessionRow},
    statements::{self, ClaimedOwnRow, LedgerEntry, TextMark},
    steps::{self, ReportSource, Step},
    store::Sessions,
};
use crate::{
    db::{self, StatementError, kinds, persist},
    sms::FoundText,
    trouble::Trouble,
};
use std::time::Instant;
use uuid::Uuid;

/// How the invite continues once the result of a claim is recorded.
#[derive(Debug)]
pub(crate) enum Continuation {
    /// The invite has its outcome.
    Outcome(Outcome),
    /// It continues later.
    Later(Resume),
    /// Another worker has claimed it since: the row decides how it continues.
    Lost,
}

impl Sessions {
    /// Claims a row for one more try, which is counted before it is made. `None` when another worker was faster, the session
    /// is over, or the text may not be sent any more.
    pub(crate) async fn claim(&self, row: &SessionRow, to: &Recipient<'_>) -> Result<Option<Claim>, Trouble> {
        // Random, so that the claim is recognized when a lost connection hid its commit.
        let fence = rand::random_range(1..=i64::MAX);
        let claim = || async {
            let mut connection = self.rewinds.acquire(&self.pool).await?;
            // The wait for a connection, and the runs before this one, take nothing from the claim's time.
            let begun = Instant::now();
            let limits = statements::claim(&mut connection, row, to, fence, self.times).await?;
            Ok::<_, sqlx::Error>(limits.map(|limits| (begun, limits)))
        };
        match persist(&kinds::CLAIM_SESSION, &self.stop, claim).await? {
            Some((begun, limits)) => Claim::of_row(row, fence, begun, &limits).map(Some),
            None => Ok(None),
        }
    }

    /// Claims this worker's own new row once more, as the answer to its insert was lost. The claim is committed before the
    /// text: a row that is visible is not yet replicated, as its commit may have been cut off while it waited for the
    /// standby. `None` if another worker has claimed the row.
    pub(super) async fn claim_own(&self, id: Uuid) -> Result<Option<(i64, InsertedRow)>, Trouble> {
        let fence = rand::random_range(1..=i64::MAX);
        let claim = || async {
            let mut connection = self.rewinds.acquire(&self.pool).await?;
            let begun = Instant::now();
            let row = statements::claim_own(&mut connection, id, fence, self.times).await?;
            let inserted = |row: ClaimedOwnRow| InsertedRow {
                begun,
                expires_at: row.expires_at,
                ticket: row.ticket,
                looks_first: false,
            };
            Ok::<_, sqlx::Error>(row.map(|row| (fence, inserted(row))))
        };
        persist(&kinds::CLAIM_SESSION, &self.stop, claim).await
    }

    /// Records the result of a claim, with the step of a try that was not accepted. Answers how the invite continues.
    pub(crate) async fn record(
        &self,
        claim: Claim,
        result: ClaimResult,
        step: Option<Step>,
    ) -> Result<Continuation, Trouble> {
        let is_recorded = self.records.run(claim.ledger_entry(&result, step)).await?;
        match (is_recorded, result) {
            (true, ClaimResult::Refused(refusal) | ClaimResult::Unknown(refusal)) => {
                Ok(Continuation::Outcome(Outcome::Refused(refusal)))
            }
            (true, ClaimResult::Accepted { provider_message_id }) => {
                Ok(Continuation::Outcome(Outcome::Sent(claim.sent(provider_message_id))))
            }
            (true, ClaimResult::Waiting { after }) => Ok(Continuation::Later(claim.resume_after(after))),
            (true, ClaimResult::Unsure { again, .. }) => Ok(Continuation::Later(claim.resume_after(again))),
            // The provider has a text, no matter which worker has the row now: no further one may be sent.
            (false, ClaimResult::Accepted { provider_message_id }) => {
                let step = Step::Receipt {
                    status: "accepted".to_owned(),
                    code: None,
                    sid: provider_message_id.clone(),
                    by: ReportSource::LateAnswer,
                    changed: false,
                    ours: false,
                };
                self.record_accepted(claim.id, &provider_message_id, &step).await?;
                Ok(Continuation::Lost)
            }
            (false, _) => Ok(Continuation::Lost),
        }
    }

    /// Ends an invite whose row no worker has a claim on. Answers whether that was still so.
    pub(crate) async fn close(
        &self,
        row: &SessionRow,
        result: &ClaimResult,
        step: Step,
    ) -> Result<bool, Trouble> {
        let entry = LedgerEntry { step: Some(step), ..ledger_entry(row.id, row.fence, result) };
        self.records.run(entry).await
    }

    /// Records that the provider accepted a session's text: by its list, or by an answer that came too late.
    pub(crate) async fn record_accepted(
        &self,
        id: Uuid,
        provider_message_id: &str,
        step: &Step,
    ) -> Result<(), Trouble> {
        let note = || receipts::note(&self.pool, id, provider_message_id, TextReport::Accepted, Some(step));
        let result = persist(&kinds::NOTE_ACCEPTED_TEXT, &self.stop, note).await?;
        receipts::report_contradiction(id, provider_message_id, &result);
        Ok(())
    }

    /// Whether the row's text may be sent now: its group may have been switched off or paused since the row was written, and
    /// its visitor may have sent STOP.
    pub(crate) async fn may_send(
        &self,
        row: &SessionRow,
        to: &Recipient<'_>,
    ) -> Result<SendPermission, Trouble> {
        let read = || statements::may_send(&self.pool, row, to);
        persist(&kinds::LOOK_AT_PERMISSION, &self.stop, read).await
    }

    /// Keeps a step that changes nothing else. The invite goes on without it if the database does not answer.
    pub(crate) async fn note_step(&self, session: Uuid, step: &Step) {
        let noted = db::with_time_limit(Box::pin(steps::note(&self.pool, session, step))).await;
        kinds::KEEP_STEP.note(&noted);
        if let Err(error) = noted {
            tracing::debug!(%session, error = %error.summary(), "a step is not kept");
        }
    }

    /// Records a look at the provider's list that missed the text of the row's last try.
    pub(crate) async fn record_miss(&self, row: &SessionRow) -> Result<(), Trouble> {
        persist(&kinds::COUNT_LOOK, &self.stop, || statements::record_miss(&self.pool, row)).await
    }

    /// Those of the texts to the row's number that belong to no other session. A text of another session may be in the list
    /// before its row has its id.
    pub(crate) async fn without_other_sessions_texts(
        &self,
        row: &SessionRow,
        mut texts: Vec<FoundText>,
    ) -> Result<Vec<FoundText>, Trouble> {
        if texts.is_empty() {
            return Ok(texts);
        }
        let phone = row.text_parts()?.phone;
        let sids: Vec<_> = texts.iter().map(|text| text.sid.clone()).collect();
        let find = || statements::marks_of_others(&self.pool, row.id, phone, &sids);
        let others = persist(&kinds::FIND_TEXT_OWNERS, &self.stop, find).await?;
        texts.retain(|text| !others.iter().any(|other| other.is_of(text)));
        Ok(texts)
    }
}

impl TextMark {
    fn is_of(&self, text: &FoundText) -> bool {
        match &self.provider_message_id {
            Some(sid) => *sid == text.sid,
            None => text.body.as_ref().is_some_and(|body| body.contains(&self.token)),
        }
    }
}
