//! The `sessions` table, as verbs. Every statement on it stands in this folder.

mod batch;
mod key;
pub mod lookup;
mod row;
mod statements;
mod sweep;

pub use key::{SessionKey, Token};
pub use row::{About, Asked, Outcome, Resume, Sent, Standing};
pub use statements::Lease;
pub use sweep::sweep;

use crate::{
    group::GroupId,
    metrics,
    refusal::{Code, Refusal},
    trouble::{Trouble, persist},
};
use batch::Grouped;
use row::{Content, NewRow};
use sqlx::PgPool;
use statements::{Ended, Insert, Record, Which};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Draws of a key before a collision is taken for a bug: four lengths of it.
const DRAWS_AT_MOST: u32 = 32;

/// What a claim may take from its statement to the first byte on the provider's line. It is all that the worker's own
/// delays can be: a process that was stopped for longer finds its claim over, and sends nothing.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// The sessions of one installation.
#[derive(Debug)]
pub struct Sessions {
    pool: PgPool,
    insert: Grouped<Insert>,
    record: Grouped<Record>,
    lease: Lease,
    stop: CancellationToken,
}

/// A session to open: what it is about, and how its key becomes a text.
pub struct Opening<'a> {
    pub about: &'a About,
    pub asked: &'a Asked,
    pub key_length: u8,
    pub ttl: Duration,
    pub text: &'a (dyn Fn(&SessionKey, &Token) -> String + Sync),
}

impl std::fmt::Debug for Opening<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("about", &self.about).finish_non_exhaustive()
    }
}

/// A session that is claimed: its row is there, and its text is ours to hand over, once.
#[derive(Debug)]
pub struct Session {
    pub id: Uuid,
    pub group: i64,
    pub key: String,
    pub text: String,
    /// E.164.
    pub phone: String,
    pub expires_at: OffsetDateTime,
    /// Tries that were begun, with this one.
    pub attempts: i32,
    /// Whether an earlier try may have been taken and was never looked for.
    pub unsettled: bool,
    /// Before the claim's statement was sent.
    begun: Instant,
    /// The claim's name.
    fence: i64,
    pub ticket: Uuid,
    ttl_left: Duration,
    deadline_left: Option<Duration>,
    own_limit_left: Option<Duration>,
}

/// What a message id that was used before stands for.
#[derive(Debug)]
pub enum Repeated {
    /// The same request: this is its row.
    Same(Box<Standing>),
    /// The id belongs to a request with another content.
    Conflict,
}

/// What became of a claim on a session's text.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
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

/// What stands in the row once a claim's end was recorded.
#[derive(Debug)]
pub enum Recorded {
    /// The invite has its outcome.
    Outcome(Outcome),
    /// It goes on later.
    Open(Resume),
    /// Another worker has claimed it since: the row says how it goes on.
    Lost,
}

impl Sessions {
    /// `stop` ends the waiting for a database that is away.
    pub fn start(pool: PgPool, lease: Lease, stop: CancellationToken) -> Self {
        let insert = Grouped::start(Insert { pool: pool.clone(), lease }, &stop);
        let record = Grouped::start(Record { pool: pool.clone() }, &stop);
        Self { pool, insert, record, lease, stop }
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
        let which = match message_id {
            Some(message_id) => Which::Owner { group, message_id, params: "{}" },
            None => Which::Unacknowledged { request_sha256 },
        };
        Ok(self.find(which).await?.filter(|row| row.came_from(request_sha256)))
    }

    /// The row that a copy of ours goes on with. `None` if the ticket is not the row's: then it is not our copy.
    pub async fn resume(&self, session: Uuid, ticket: Uuid) -> Result<Option<Standing>, Trouble> {
        Ok(self.by_id(session).await?.filter(|row| row.ticket == ticket))
    }

    /// The row as it stands now.
    pub async fn again(&self, row: &Standing) -> Result<Standing, Trouble> {
        let gone = || Trouble::Defect("a session's row is gone while its invite is in hand".to_owned());
        self.by_id(row.id).await?.ok_or_else(gone)
    }

    /// The broker has surely taken the acknowledgements of these requests, none of which has a message id: one that
    /// equals them is a request of its own.
    pub async fn acknowledged(&self, requests: &[[u8; 32]]) -> Result<(), Trouble> {
        persist("acknowledge", &self.stop, || statements::acknowledge(&self.pool, requests)).await
    }

    /// Begins a session under a key that nobody in its group holds; `None` when another row answers for its message id:
    /// see [`Self::repeat`].
    pub async fn open(&self, opening: &Opening<'_>) -> Result<Option<Session>, Trouble> {
        let &Opening { about, asked, key_length, ttl, text } = opening;
        let (id, begun) = (Uuid::now_v7(), Instant::now());
        for draw in 0..DRAWS_AT_MOST {
            let (key, token) = (SessionKey::draw(key_length, draw), Token::draw());
            let text = text(&key, &token);
            let content = Content::Begun {
                key: key.as_str().to_owned(),
                token: token.as_str().to_owned(),
                text: text.clone(),
                ttl,
            };
            let row =
                NewRow { id, about: about.clone(), asked: asked.clone(), owns_message_id: true, content };
            let (expires_at, ticket) = match self.insert.run(row).await? {
                Some(written) => (written.expires_at, written.ticket),
                // Either a lost connection has hidden the commit of our own row, which is ours to send for as long as
                // nobody has claimed it, or what we drew is taken.
                None => match self.by_id(id).await? {
                    Some(row) if row.is_untouched() => (row.expires_at, row.ticket),
                    Some(_) => return Ok(None),
                    None if self.is_taken(about, asked).await? => return Ok(None),
                    None => {
                        tracing::debug!(group = %about.group, draw, "a session key was taken; drawing another");
                        continue;
                    }
                },
            };
            return Ok(Some(Session {
                id,
                group: about.group.get(),
                key: key.into(),
                text,
                phone: asked.phone.clone().unwrap_or_default(),
                expires_at: expires_at.unwrap_or_else(OffsetDateTime::now_utc),
                attempts: 1,
                unsettled: false,
                begun,
                fence: 0,
                ticket,
                ttl_left: ttl,
                deadline_left: about.deadline,
                own_limit_left: about.own_limit,
            }));
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

    /// Claims a row for one more try, which is counted before it is made; `None` when another was faster, or it is over.
    pub async fn claim(&self, row: &Standing) -> Result<Option<Session>, Trouble> {
        // Random, so that a claim whose commit a lost connection hid is known again.
        let (fence, begun) = (rand::random_range(1..=i64::MAX), Instant::now());
        let claim = || statements::claim(&self.pool, row, fence, self.lease);
        let Some(claimed) = persist("claim a session", &self.stop, claim).await? else { return Ok(None) };
        let lost = |what: &str| Trouble::Defect(format!("a session in hand has no {what}"));
        Ok(Some(Session {
            id: row.id,
            group: row.group_id,
            key: row.session_key.clone().ok_or_else(|| lost("key"))?,
            text: row.invitation_text.clone().ok_or_else(|| lost("text"))?,
            phone: row.phone.clone().ok_or_else(|| lost("phone"))?,
            expires_at: row.expires_at.ok_or_else(|| lost("expiry"))?,
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
    pub async fn record(&self, session: Session, fate: Fate) -> Result<Recorded, Trouble> {
        let ended = ended(session.id, session.fence, &fate);
        let resume = |after| Resume { session: session.id, ticket: session.ticket, after };
        match (self.record.run(ended).await?, fate) {
            (true, Fate::Refused(refusal) | Fate::Unknown(refusal)) => {
                Ok(Recorded::Outcome(Outcome::Refused(refusal)))
            }
            (true, Fate::Accepted { provider_message_id }) => {
                Ok(Recorded::Outcome(Outcome::Sent(session.sent(provider_message_id))))
            }
            (true, Fate::Waiting { after }) => Ok(Recorded::Open(resume(after))),
            (true, Fate::Unsure { again, .. }) => Ok(Recorded::Open(resume(again))),
            // A text was taken, whoever has claimed its row since: nobody may send it again.
            (false, Fate::Accepted { provider_message_id }) => {
                self.accepted(session.id, &provider_message_id).await?;
                Ok(Recorded::Lost)
            }
            (false, _) => Ok(Recorded::Lost),
        }
    }

    /// Ends an invite whose row nobody has a claim on. Whether it took is for the row to say.
    pub async fn close(&self, row: &Standing, fate: &Fate) -> Result<(), Trouble> {
        self.record.run(ended(row.id, row.fence, fate)).await.map(drop)
    }

    /// The provider's own word that it accepted a session's text: from its list, or from a receipt.
    pub async fn accepted(&self, id: Uuid, provider_message_id: &str) -> Result<(), Trouble> {
        let accept = || statements::accepted(&self.pool, id, provider_message_id);
        persist("accepted after all", &self.stop, accept).await?;
        let Some(row) = self.by_id(id).await? else { return Ok(()) };
        if row.provider_message_id.as_deref().is_some_and(|other| other != provider_message_id) {
            metrics::texted_twice();
            let first = row.provider_message_id;
            tracing::error!(session = %id, first, second = provider_message_id, "a visitor was texted twice");
        } else if row.released_id() {
            metrics::texted_though_told_not();
            tracing::error!(session = %id, text = provider_message_id, "a text went out after its sender was told that none did");
        }
        Ok(())
    }

    /// A look at the provider's list has missed the text of the row's last try.
    pub async fn missed(&self, row: &Standing) -> Result<(), Trouble> {
        persist("count a look", &self.stop, || statements::missed(&self.pool, row)).await
    }

    /// Those of the texts to the row's number that no other session has.
    pub async fn not_taken(&self, row: &Standing, mut texts: Vec<String>) -> Result<Vec<String>, Trouble> {
        if texts.is_empty() {
            return Ok(texts);
        }
        let phone = row.phone.as_deref().unwrap_or_default();
        let find = || statements::taken_texts(&self.pool, row.id, phone, &texts);
        let taken = persist("whose are texts", &self.stop, find).await?;
        texts.retain(|text| !taken.contains(text));
        Ok(texts)
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
        Ok(self.insert.run(row).await?.is_some())
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
        Ok(Some(if row.asks_the_same(asked) { Repeated::Same(Box::new(row)) } else { Repeated::Conflict }))
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
        persist("find a session", &self.stop, || statements::find(&self.pool, which)).await
    }

    async fn release(&self, id: Uuid) -> Result<(), Trouble> {
        persist("release a message id", &self.stop, || statements::release_message_id(&self.pool, id)).await
    }
}

impl Session {
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
            group: 72,
            key: "123456".to_owned(),
            text: "code 123456".to_owned(),
            phone: "+11110000000".to_owned(),
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

    fn sent(self, provider_message_id: String) -> Sent {
        Sent {
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

impl Lease {
    /// For requests that end within the provider's time-out, and a list that is right after `settle`.
    pub fn of(timeout: Duration, settle: Duration) -> Self {
        Self { ends: LEASE_MARGIN + timeout, settle }
    }
}

/// How a claim's end is written down.
pub(crate) fn ended(id: Uuid, fence: i64, fate: &Fate) -> Ended {
    let (status, text_state, sid, refusal, rest) = match fate {
        Fate::Accepted { provider_message_id } => ("sent", "accepted", Some(provider_message_id), None, None),
        Fate::Unknown(refusal) => ("unknown", "unknown", None, Some(refusal), None),
        Fate::Refused(refusal) if refusal.code.is_failure() => {
            ("failed", "refused", None, Some(refusal), None)
        }
        Fate::Refused(refusal) => ("rejected", "refused", None, Some(refusal), None),
        Fate::Waiting { after } => ("sending", "waiting", None, None, Some(*after)),
        Fate::Unsure { rest, .. } => ("sending", "unknown", None, None, Some(*rest)),
    };
    let (provider_message_id, refusal) = (sid.cloned(), refusal.cloned());
    Ended { id, fence, status, text_state, provider_message_id, refusal, rest }
}

fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
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
