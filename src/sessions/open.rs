//! Where a row begins: a session is opened, a refusal is stored, or another row answers for the message id.

use super::{
    claim::Claim,
    insert::InsertResult,
    new_row::{FirstStep, NewRow, NewSession, RequestRecord},
    row::{Outcome, SessionRow},
    statements,
    store::Sessions,
};
use crate::{
    db::{kinds, persist},
    refusal::Refusal,
    trouble::Trouble,
};
use std::time::Instant;
use uuid::Uuid;

/// Draws of a key before a collision is taken for a bug: four lengths of it.
const DRAWS_AT_MOST: u32 = 32;

/// What is in the table after [`Sessions::open`].
#[derive(Debug)]
pub(crate) enum OpenResult {
    New(Claim),
    /// This call's own row, which decides what comes next: a lost connection hid its commit for so long that another worker
    /// may have claimed it; or the provider's list, or the end of its group's pause, comes before its first text.
    Ours(Box<SessionRow>),
    /// Another row answers for the message id: see [`Sessions::repeat`].
    Taken,
    /// The number has had its texts or has opted out. The refusal is stored.
    Refused(Outcome),
}

/// What [`Sessions::refuse_new`] found or stored.
#[derive(Debug)]
pub(crate) enum RefuseResult {
    Stored(Outcome),
    /// The message id was used before.
    Repeat(Duplicate),
}

/// What a message id that was used before stands for.
#[derive(Debug)]
pub(crate) enum Duplicate {
    /// The same request, with its row.
    Same(Box<SessionRow>),
    /// A request with another content.
    Conflict,
}

impl Sessions {
    /// Begins a session under a key that no other session of its group holds, unless its message id is taken, or its number
    /// has had its texts or has opted out. `draw` makes the session of each draw, from 0.
    pub(crate) async fn open(
        &self,
        request: &RequestRecord,
        draw: impl Fn(u32) -> NewSession + Send + Sync,
    ) -> Result<OpenResult, Trouble> {
        let (id, opened) = (Uuid::now_v7(), Instant::now());
        for nth in 0..DRAWS_AT_MOST {
            let session = draw(nth);
            let inserted = self.insert_session(id, request, &session).await?;
            if let InsertResult::Written(row) = inserted {
                if row.looks_first || session.first_step == FirstStep::Wait {
                    return Ok(OpenResult::Ours(Box::new(self.reread(id).await?)));
                }
                return Ok(OpenResult::New(Claim::of_new_row(id, request, session, opened, (0, row))));
            }
            // The message id comes before the limits: the refusal goes in only if that is free.
            if let Some(refusal) = inserted.refusal()
                && self.insert_refusal(NewRow::refusal(id, request, &refusal)).await?
            {
                return Ok(OpenResult::Refused(Outcome::Refused(refusal)));
            }
            // Either a lost connection has hidden the commit of this row, which is ours to send once we have claimed it; or
            // the key or the message id is taken.
            match self.by_id(id).await? {
                Some(row) if row.is_untouched() => {
                    return Ok(match self.claim_own(id).await? {
                        Some(claimed) => {
                            OpenResult::New(Claim::of_new_row(id, request, session, opened, claimed))
                        }
                        None => OpenResult::Ours(Box::new(self.reread(id).await?)),
                    });
                }
                Some(row) => return Ok(OpenResult::Ours(Box::new(row))),
                None if self.is_taken(request).await? => return Ok(OpenResult::Taken),
                None => {
                    tracing::debug!(
                        group = request.group.get(),
                        nth,
                        "a session key was taken; drawing another"
                    );
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
            let inserted = self.inserts.run(NewRow::session(id, request, session)).await?;
            // The rows before it in its statement are in the table by now, or had no room either: try again.
            if !matches!(inserted, InsertResult::Crowded) {
                return Ok(inserted);
            }
        }
    }

    /// Stores a refusal that does not depend on the message id. Its row answers for the id if no text exists for that.
    pub(crate) async fn refuse(&self, request: &RequestRecord, refusal: Refusal) -> Result<Outcome, Trouble> {
        let id = Uuid::now_v7();
        let mut row = NewRow::refusal(id, request, &refusal);
        while !self.insert_refusal(row.clone()).await? && self.by_id(id).await?.is_none() {
            row.owns_message_id = self.release_for(request).await?;
        }
        Ok(Outcome::Refused(refusal))
    }

    /// Stores a refusal that comes after the check of the message id; or finds what the id stands for.
    pub(crate) async fn refuse_new(
        &self,
        request: &RequestRecord,
        refusal: Refusal,
    ) -> Result<RefuseResult, Trouble> {
        let id = Uuid::now_v7();
        loop {
            let stored = self.insert_refusal(NewRow::refusal(id, request, &refusal)).await?;
            if stored || self.by_id(id).await?.is_some() {
                return Ok(RefuseResult::Stored(Outcome::Refused(refusal)));
            }
            if let Some(duplicate) = self.repeat(request).await? {
                return Ok(RefuseResult::Repeat(duplicate));
            }
        }
    }

    /// Answers whether the row of a refusal was written; it is not if its message id is taken.
    async fn insert_refusal(&self, refusal: NewRow) -> Result<bool, Trouble> {
        Ok(matches!(self.inserts.run(refusal).await?, InsertResult::Written(_)))
    }

    /// What a taken message id stands for; `None` when it is free again.
    pub(crate) async fn repeat(&self, request: &RequestRecord) -> Result<Option<Duplicate>, Trouble> {
        let Some(message_id) = &request.message_id else { return Ok(None) };
        let since_received = request.received.elapsed();
        let Some(row) = self.owner(request.group, message_id, &request.session_params).await? else {
            return Ok(None);
        };
        if row.frees_message_id() {
            // The broker may have delivered the same message to another worker since: what that worker wrote is this
            // message's outcome.
            let answered_meanwhile = row.age <= since_received.as_secs_f64();
            if (request.redelivered || answered_meanwhile) && row.came_from(&request.request_sha256) {
                return Ok(Some(Duplicate::Same(Box::new(row))));
            }
            self.release(row.id).await?;
            return Ok(None);
        }
        Ok(Some(match row.if_same_content(request, &self.hasher) {
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

    /// Frees a message id for which surely no text exists; answers whether the id was free to take.
    async fn release_for(&self, request: &RequestRecord) -> Result<bool, Trouble> {
        let Some(message_id) = &request.message_id else { return Ok(true) };
        match self.owner(request.group, message_id, &request.session_params).await? {
            Some(row) if row.frees_message_id() => self.release(row.id).await.map(|()| true),
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }

    async fn release(&self, id: Uuid) -> Result<(), Trouble> {
        persist(&kinds::RELEASE_MESSAGE_ID, &self.stop, || statements::release_message_id(&self.pool, id))
            .await
    }
}
