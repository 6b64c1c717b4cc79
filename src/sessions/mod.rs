//! The `sessions` table, as verbs. Every statement on it stands in this folder.

mod agents;
mod batch;
mod claim;
mod columns;
mod fingerprint;
mod gate;
mod insert;
pub mod lookup;
pub mod metrics;
mod new_row;
mod outbox;
mod permission;
mod receipts;
mod retention;
mod row;
mod statements;
mod status;
mod sweep;
mod visitors;

pub use agents::{Ending, LiveSession, end, join, look_up};
#[cfg(test)]
pub(crate) use claim::ledger_entry;
pub use claim::{Claim, ClaimResult, Continuation};
pub use fingerprint::Fingerprints;
pub use gate::opted_out;
use new_row::InsertedRow;
pub use new_row::{NewRow, NewSession, RequestRecord};
pub use outbox::{EVENTS_IN_A_BATCH, Event, EventBatch, Outbox};
pub use permission::{Permission, Recipient};
pub use receipts::{Heard, Word, hear};
pub use retention::retain;
pub use row::{Outcome, Resume, SentSession, SessionRow, TextParts};
pub use statements::ClaimTimes;
pub use status::{Status, TextState};
pub use sweep::sweep;
pub use visitors::{VisitedSession, visit};

use crate::{
    db::{Passing, kinds, persist},
    group_id::GroupId,
    refusal::{Code, Refusal},
    trouble::Trouble,
};
use batch::Grouped;
use insert::{Insert, InsertResult};
use sqlx::PgPool;
use statements::{Record, RowLookup};
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Draws of a key before a collision is taken for a bug: four lengths of it.
const DRAWS_AT_MOST: u32 = 32;

/// The sessions of one installation.
#[derive(Debug)]
pub struct Sessions {
    pool: PgPool,
    insert: Grouped<Insert>,
    record: Grouped<Record>,
    times: ClaimTimes,
    fingerprints: Fingerprints,
    stop: CancellationToken,
}

/// What stands in the table after [`Sessions::open`].
#[derive(Debug)]
pub enum OpenResult {
    New(Claim),
    /// Our own row is there, but a lost connection hid it for so long that it is not ours alone any more.
    Ours(Box<SessionRow>),
    /// Another row answers for the message id: see [`Sessions::repeat`].
    Taken,
    /// Its number has had its texts, or wants none: that is stored.
    Refused(Outcome),
}

/// What a message id that was used before stands for.
#[derive(Debug)]
pub enum Duplicate {
    /// The same request: this is its row.
    Same(Box<SessionRow>),
    /// The id belongs to a request with another content.
    Conflict,
}

impl Sessions {
    /// `stop` ends the waiting for a database that is away.
    pub fn start(
        pool: PgPool,
        times: ClaimTimes,
        fingerprints: Fingerprints,
        stop: CancellationToken,
    ) -> Self {
        let insert = Grouped::start(Insert { times }, &pool, &stop);
        let record = Grouped::start(Record, &pool, &stop);
        Self { pool, insert, record, times, fingerprints, stop }
    }

    /// The row of a redelivered request, if this is that request to the byte. It needs no credential: who can say all of
    /// the request again has said it before.
    ///
    /// Without a message id, it is taken for any request that equals it and whose acknowledgement is not sure: rather
    /// no text than two.
    pub async fn recall(
        &self,
        group: GroupId,
        message_id: Option<&str>,
        request_sha256: &[u8; 32],
    ) -> Result<Option<SessionRow>, Trouble> {
        let Some(message_id) = message_id else {
            return self.find(RowLookup::Unacknowledged { request_sha256 }).await;
        };
        let owner = self.find(RowLookup::Owner { group, message_id, params: "{}" }).await?;
        let former = RowLookup::Former { group, message_id, request_sha256 };
        match owner.filter(|row| row.came_from(request_sha256)) {
            Some(row) => Ok(Some(row)),
            None => self.find(former).await,
        }
        .map(|row| row.filter(SessionRow::is_told))
    }

    /// The row that a copy of ours goes on with. `None` if the ticket is not the row's: then it is not our copy.
    pub async fn resume(&self, session: Uuid, ticket: Uuid) -> Result<Option<SessionRow>, Trouble> {
        Ok(self.by_id(session).await?.filter(|row| row.ticket == ticket && !ticket.is_nil() && row.is_told()))
    }

    /// The row as it stands now.
    pub async fn again(&self, id: Uuid) -> Result<SessionRow, Trouble> {
        let gone = || Trouble::Defect("a session's row is gone while its invite is in hand".to_owned());
        self.by_id(id).await?.ok_or_else(gone)
    }

    /// The broker has surely taken the acknowledgements of these requests, none of which has a message id: one that
    /// equals them is a request of its own.
    pub async fn acknowledged(&self, requests: &[[u8; 32]]) -> Result<(), Trouble> {
        // Once only: made again, it might mark the row of an equal request that is still in hand. A mark that is lost leaves
        // the request unsure, which is safe.
        let marked = statements::acknowledge(&self.pool, requests).await;
        kinds::ACKNOWLEDGE.note(&marked);
        marked.map_err(|error| Trouble::Defect(error.summary()))
    }

    /// Begins a session under a key that nobody in its group holds, unless its message id is taken, or its number has had
    /// its texts or wants none. `draw` makes the session of each draw, from 0.
    pub async fn open(
        &self,
        request: &RequestRecord,
        draw: impl Fn(u32) -> NewSession + Send + Sync,
    ) -> Result<OpenResult, Trouble> {
        let (id, opened) = (Uuid::now_v7(), Instant::now());
        for nth in 0..DRAWS_AT_MOST {
            let session = draw(nth);
            let inserted = self.insert_session(id, request, &session).await?;
            if let InsertResult::Written(row) = inserted {
                return Ok(OpenResult::New(Claim::of_new_row(id, request, session, opened, row)));
            }
            // The id comes before the limits: the refusal is stored as a row that the same things stand in the way of.
            if let Some(refusal) = inserted.refusal()
                && self.insert_refusal(id, request, &refusal, true).await?
            {
                return Ok(OpenResult::Refused(Outcome::Refused(refusal)));
            }
            // Either a lost connection has hidden the commit of our own row, which is ours to send for as long as nobody
            // has claimed it, or what we drew is taken.
            match self.by_id(id).await? {
                Some(row) if row.is_untouched() => {
                    let row = InsertedRow { expires_at: row.expires_at, ticket: row.ticket, begun: opened };
                    return Ok(OpenResult::New(Claim::of_new_row(id, request, session, opened, row)));
                }
                Some(row) => return Ok(OpenResult::Ours(Box::new(row))),
                None if self.is_taken(request).await? => return Ok(OpenResult::Taken),
                None => {
                    tracing::debug!(group = %request.group, nth, "a session key was taken; drawing another");
                }
            }
        }
        Err(Trouble::Defect(format!("{DRAWS_AT_MOST} session keys in a row were taken")))
    }

    async fn insert_session(
        &self,
        id: Uuid,
        request: &RequestRecord,
        session: &NewSession,
    ) -> Result<InsertResult, Trouble> {
        loop {
            let (request, content) = (request.clone(), Ok(session.clone()));
            let inserted = self.insert.run(NewRow { id, request, owns_message_id: true, content }).await?;
            // Those before it in its statement are in the table by now, or had no room either: it asks again.
            if !matches!(inserted, InsertResult::Crowded) {
                return Ok(inserted);
            }
        }
    }

    /// Stores a refusal that does not depend on the message id: the row answers for the id if no text exists for it.
    pub async fn refuse(&self, request: &RequestRecord, refusal: Refusal) -> Result<Outcome, Trouble> {
        let id = Uuid::now_v7();
        let mut owns = true;
        while !self.insert_refusal(id, request, &refusal, owns).await? && self.by_id(id).await?.is_none() {
            owns = self.release_for(request).await?;
        }
        Ok(Outcome::Refused(refusal))
    }

    /// Stores a refusal that comes after the look at the message id; or finds what the id stands for.
    pub async fn refuse_new(
        &self,
        request: &RequestRecord,
        refusal: Refusal,
    ) -> Result<Result<Outcome, Duplicate>, Trouble> {
        let id = Uuid::now_v7();
        loop {
            let stored = self.insert_refusal(id, request, &refusal, true).await?;
            if stored || self.by_id(id).await?.is_some() {
                return Ok(Ok(Outcome::Refused(refusal)));
            }
            if let Some(repeated) = self.repeat(request).await? {
                return Ok(Err(repeated));
            }
        }
    }

    /// Answers whether the row went in; it does not if its message id is taken.
    async fn insert_refusal(
        &self,
        id: Uuid,
        request: &RequestRecord,
        refusal: &Refusal,
        owns_message_id: bool,
    ) -> Result<bool, Trouble> {
        let (request, content) = (request.clone(), Err(refusal.clone()));
        let row = NewRow { id, request, owns_message_id, content };
        Ok(matches!(self.insert.run(row).await?, InsertResult::Written(_)))
    }

    /// What a taken message id stands for; `None` when it is free again.
    pub async fn repeat(&self, request: &RequestRecord) -> Result<Option<Duplicate>, Trouble> {
        let Some(message_id) = &request.message_id else { return Ok(None) };
        let in_hand_for = request.received.elapsed();
        let Some(row) = self.owner(request.group, message_id, &request.session_params).await? else {
            return Ok(None);
        };
        if row.released_id() {
            // The broker may have given the same message to another while it was in hand here: what that one wrote since
            // then is its outcome.
            let answered_meanwhile = row.age <= in_hand_for.as_secs_f64();
            if (request.redelivered || answered_meanwhile) && row.came_from(&request.request_sha256) {
                return Ok(Some(Duplicate::Same(Box::new(row))));
            }
            self.release(row.id).await?;
            return Ok(None);
        }
        Ok(Some(match row.asked_for_by(request, &self.fingerprints) {
            Some(row) => Duplicate::Same(Box::new(row)),
            None => Duplicate::Conflict,
        }))
    }

    /// Whether another row answers for the message id.
    async fn is_taken(&self, request: &RequestRecord) -> Result<bool, Trouble> {
        match &request.message_id {
            Some(id) => Ok(self.owner(request.group, id, &request.session_params).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Frees a message id after which surely no text exists; answers whether it was free to take.
    async fn release_for(&self, request: &RequestRecord) -> Result<bool, Trouble> {
        let Some(message_id) = &request.message_id else { return Ok(true) };
        match self.owner(request.group, message_id, &request.session_params).await? {
            Some(row) if row.released_id() => self.release(row.id).await.map(|()| true),
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }

    async fn owner(
        &self,
        group: GroupId,
        message_id: &str,
        params: &str,
    ) -> Result<Option<SessionRow>, Trouble> {
        self.find(RowLookup::Owner { group, message_id, params }).await
    }

    async fn by_id(&self, id: Uuid) -> Result<Option<SessionRow>, Trouble> {
        self.find(RowLookup::Id(id)).await
    }

    async fn find(&self, lookup: RowLookup<'_>) -> Result<Option<SessionRow>, Trouble> {
        persist(&kinds::FIND_SESSION, &self.stop, || statements::find(&self.pool, lookup, self.times.settle))
            .await
    }

    async fn release(&self, id: Uuid) -> Result<(), Trouble> {
        persist(&kinds::RELEASE_MESSAGE_ID, &self.stop, || statements::release_message_id(&self.pool, id))
            .await
    }
}

/// The answer about a text that may have gone out.
pub fn unknown() -> Refusal {
    let message = "a text may have gone out; nobody can say, so do not send the invite again";
    Refusal::new(Code::OutcomeUnknown, message)
}

/// The answer to an invite whose time was over before a text could be handed over.
pub fn too_late() -> Refusal {
    Refusal::new(Code::InviteExpired, "the invite was too old when its turn came; nobody was texted")
}
