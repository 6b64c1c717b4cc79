//! The `sessions` table, as verbs. Every statement on it stands in this folder.

mod agents;
mod batch;
mod claim;
mod fingerprint;
mod gate;
mod insert;
mod key;
pub mod lookup;
pub mod metrics;
mod receipts;
mod retention;
mod row;
mod statements;
mod sweep;
mod visitors;

pub use agents::{Ending, Live, end, join, look_up};
#[cfg(test)]
pub(crate) use claim::ended;
pub use claim::{Fate, Permission, Recipient, Recorded, Session};
pub use fingerprint::Fingerprints;
pub use gate::{Gate, opted_out};
pub use key::{SessionKey, Token};
pub use receipts::{Heard, Word, hear};
pub use retention::retain;
pub use row::{About, Asked, Outcome, Resume, Sent, Standing};
pub use statements::Lease;
pub use sweep::sweep;
pub use visitors::{Visited, visit};

use crate::{
    db::{Passing, kinds, persist},
    group_id::GroupId,
    refusal::{Code, Refusal},
    trouble::Trouble,
};
use batch::Grouped;
use gate::Gated;
use insert::{Insert, Inserted};
use row::{Begun, Content, NewRow, Written};
use sqlx::PgPool;
use statements::{Record, Which};
use std::time::{Duration, Instant};
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
    lease: Lease,
    fingerprints: Fingerprints,
    stop: CancellationToken,
}

/// A session to open: what it is about, and how its key becomes a text.
pub struct Opening<'a> {
    pub about: &'a About,
    pub asked: &'a Asked,
    pub key_length: u8,
    pub ttl: Duration,
    pub gate: &'a Gate,
    pub text: &'a (dyn Fn(&SessionKey, &Token) -> String + Sync),
}

impl std::fmt::Debug for Opening<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("about", &self.about).finish_non_exhaustive()
    }
}

/// What stands in the table after [`Sessions::open`].
#[derive(Debug)]
pub enum Opened {
    New(Box<Session>),
    /// Our own row is there, but a lost connection hid it for so long that it is not ours alone any more.
    Ours(Box<Standing>),
    /// Another row answers for the message id: see [`Sessions::repeat`].
    Taken,
    /// Its number has had its texts, or wants none: that is stored.
    Refused(Outcome),
}

/// What a message id that was used before stands for.
#[derive(Debug)]
pub enum Repeated {
    /// The same request: this is its row.
    Same(Box<Standing>),
    /// The id belongs to a request with another content.
    Conflict,
}

impl Sessions {
    /// `stop` ends the waiting for a database that is away.
    pub fn start(pool: PgPool, lease: Lease, fingerprints: Fingerprints, stop: CancellationToken) -> Self {
        let insert = Grouped::start(Insert { lease }, &pool, &stop);
        let record = Grouped::start(Record, &pool, &stop);
        Self { pool, insert, record, lease, fingerprints, stop }
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
    ) -> Result<Option<Standing>, Trouble> {
        let Some(message_id) = message_id else {
            return self.find(Which::Unacknowledged { request_sha256 }).await;
        };
        let owner = self.find(Which::Owner { group, message_id, params: "{}" }).await?;
        let former = Which::Former { group, message_id, request_sha256 };
        match owner.filter(|row| row.came_from(request_sha256)) {
            Some(row) => Ok(Some(row)),
            None => self.find(former).await,
        }
        .map(|row| row.filter(Standing::is_told))
    }

    /// The row that a copy of ours goes on with. `None` if the ticket is not the row's: then it is not our copy.
    pub async fn resume(&self, session: Uuid, ticket: Uuid) -> Result<Option<Standing>, Trouble> {
        Ok(self.by_id(session).await?.filter(|row| row.ticket == ticket && !ticket.is_nil() && row.is_told()))
    }

    /// The row as it stands now.
    pub async fn again(&self, id: Uuid) -> Result<Standing, Trouble> {
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

    /// Begins a session under a key that nobody in its group holds, unless its message id is taken or its gate closed.
    pub async fn open(&self, opening: &Opening<'_>) -> Result<Opened, Trouble> {
        let Opening { about, asked, key_length, ttl, gate, text } = opening;
        let (id, begun) = (Uuid::now_v7(), Instant::now());
        for draw in 0..DRAWS_AT_MOST {
            let (key, token) = (SessionKey::draw(*key_length, draw), Token::draw());
            let text = text(&key, &token);
            let row = || NewRow {
                id,
                about: (*about).clone(),
                asked: (*asked).clone(),
                owns_message_id: true,
                content: Content::Begun(Begun {
                    key: key.as_str().to_owned(),
                    token: token.as_str().to_owned(),
                    text: text.clone(),
                    ttl: *ttl,
                    gate: (*gate).clone(),
                }),
            };
            let inserted = loop {
                match self.insert.run(row()).await? {
                    // Whoever was before it in its statement is in the table by now, or had no room either.
                    Inserted::Gated(Gated::Crowded) => {}
                    inserted => break inserted,
                }
            };
            let refusal = match inserted {
                Inserted::Written(written) => {
                    let session = Session::of_new_row(id, opening, key, text, begun, written);
                    return Ok(Opened::New(Box::new(session)));
                }
                Inserted::Gated(Gated::OptedOut) => Some(gate::opted_out()),
                Inserted::Gated(Gated::TooMany { after }) => Some(gate::too_many(after)),
                Inserted::Gated(Gated::Crowded) | Inserted::Not => None,
            };
            // The id comes before the limits: the refusal is stored as a row that the same things stand in the way of.
            if let Some(refusal) = &refusal
                && self.insert_refusal(id, about, asked, refusal, true).await?
            {
                return Ok(Opened::Refused(Outcome::Refused(refusal.clone())));
            }
            // Either a lost connection has hidden the commit of our own row, which is ours to send for as long as nobody
            // has claimed it, or what we drew is taken.
            match self.by_id(id).await? {
                Some(row) if row.is_untouched() => {
                    let written = Written { expires_at: row.expires_at, ticket: row.ticket, begun };
                    let session = Session::of_new_row(id, opening, key, text, begun, written);
                    return Ok(Opened::New(Box::new(session)));
                }
                Some(row) => return Ok(Opened::Ours(Box::new(row))),
                None if self.is_taken(about, asked).await? => return Ok(Opened::Taken),
                None => {
                    tracing::debug!(group = %about.group, draw, "a session key was taken; drawing another");
                }
            }
        }
        Err(Trouble::Defect(format!("{DRAWS_AT_MOST} session keys in a row were taken")))
    }

    /// Stores a refusal that does not depend on the message id: the row answers for the id if no text exists for it.
    pub async fn refuse(&self, about: &About, asked: &Asked, refusal: Refusal) -> Result<Outcome, Trouble> {
        let id = Uuid::now_v7();
        let mut owns = true;
        while !self.insert_refusal(id, about, asked, &refusal, owns).await? && self.by_id(id).await?.is_none()
        {
            owns = self.release_for(about, asked).await?;
        }
        Ok(Outcome::Refused(refusal))
    }

    /// Stores a refusal that comes after the look at the message id; or finds what the id stands for.
    pub async fn refuse_new(
        &self,
        about: &About,
        asked: &Asked,
        refusal: Refusal,
    ) -> Result<Result<Outcome, Repeated>, Trouble> {
        let id = Uuid::now_v7();
        loop {
            let stored = self.insert_refusal(id, about, asked, &refusal, true).await?;
            if stored || self.by_id(id).await?.is_some() {
                return Ok(Ok(Outcome::Refused(refusal)));
            }
            if let Some(repeated) = self.repeat(about, asked).await? {
                return Ok(Err(repeated));
            }
        }
    }

    /// Answers whether the row went in; it does not if its message id is taken.
    async fn insert_refusal(
        &self,
        id: Uuid,
        about: &About,
        asked: &Asked,
        refusal: &Refusal,
        owns_message_id: bool,
    ) -> Result<bool, Trouble> {
        let (about, asked, content) = (about.clone(), asked.clone(), Content::Refused(refusal.clone()));
        let row = NewRow { id, about, asked, owns_message_id, content };
        Ok(matches!(self.insert.run(row).await?, Inserted::Written(_)))
    }

    /// What a taken message id stands for; `None` when it is free again.
    pub async fn repeat(&self, about: &About, asked: &Asked) -> Result<Option<Repeated>, Trouble> {
        let Some(message_id) = &about.message_id else { return Ok(None) };
        let in_hand_for = about.received.elapsed();
        let Some(row) = self.owner(about.group, message_id, &asked.session_params).await? else {
            return Ok(None);
        };
        if row.released_id() {
            // The broker may have given the same message to another while it was in hand here: what that one wrote since
            // then is its outcome.
            let answered_meanwhile = row.age <= in_hand_for.as_secs_f64();
            if (about.redelivered || answered_meanwhile) && row.came_from(&about.request_sha256) {
                return Ok(Some(Repeated::Same(Box::new(row))));
            }
            self.release(row.id).await?;
            return Ok(None);
        }
        Ok(Some(match row.asked_for_by(asked, &self.fingerprints) {
            Some(row) => Repeated::Same(Box::new(row)),
            None => Repeated::Conflict,
        }))
    }

    /// Whether another row answers for the message id.
    async fn is_taken(&self, about: &About, asked: &Asked) -> Result<bool, Trouble> {
        match &about.message_id {
            Some(id) => Ok(self.owner(about.group, id, &asked.session_params).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Frees a message id after which surely no text exists; answers whether it was free to take.
    async fn release_for(&self, about: &About, asked: &Asked) -> Result<bool, Trouble> {
        let Some(message_id) = &about.message_id else { return Ok(true) };
        match self.owner(about.group, message_id, &asked.session_params).await? {
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
    ) -> Result<Option<Standing>, Trouble> {
        self.find(Which::Owner { group, message_id, params }).await
    }

    async fn by_id(&self, id: Uuid) -> Result<Option<Standing>, Trouble> {
        self.find(Which::Id(id)).await
    }

    async fn find(&self, which: Which<'_>) -> Result<Option<Standing>, Trouble> {
        persist(&kinds::FIND_SESSION, &self.stop, || statements::find(&self.pool, which, self.lease.settle))
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
