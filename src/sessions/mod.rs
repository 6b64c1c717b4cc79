//! The `sessions` table, as verbs. Every statement on it stands in this folder.

mod batch;
mod key;
pub mod lookup;
mod row;
mod statements;
mod sweep;

pub use key::{SessionKey, Token};
pub use row::{About, Asked, Outcome, Sent};
pub use sweep::sweep;

use crate::{
    group::GroupId,
    refusal::{Code, Refusal},
    trouble::{Trouble, persist},
};
use batch::Grouped;
use row::{Content, NewRow, Standing};
use sqlx::PgPool;
use statements::{Ended, Insert, Record};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
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

/// A session that is begun: its row is there, and its text is ours to send, once.
#[derive(Debug)]
pub struct Session {
    pub id: Uuid,
    pub group: i64,
    pub key: SessionKey,
    pub text: String,
    /// E.164.
    pub phone: String,
    pub expires_at: OffsetDateTime,
    begun: Instant,
    ttl: Duration,
}

/// What stands in the table after [`Sessions::open`].
#[derive(Debug)]
pub enum Opened {
    New(Session),
    /// Another row answers for the message id: see [`Sessions::repeat`].
    Taken,
}

/// What a message id that was used before stands for.
#[derive(Debug)]
pub enum Repeated {
    /// The request was answered before; this is its answer.
    Finished(Outcome),
    /// The id belongs to a request with another content.
    Conflict,
}

/// What the provider made of a session's text.
#[derive(Debug)]
pub enum Fate {
    Accepted {
        provider_message_id: String,
    },
    /// Surely no text.
    Refused(Refusal),
    /// A text may have gone out.
    Unknown(Refusal),
}

impl Sessions {
    /// `lease` must outlast one request to the provider; `stop` ends the waiting for a database that is away.
    pub fn start(pool: PgPool, lease: Duration, stop: CancellationToken) -> Self {
        let insert = Grouped::start(Insert { pool: pool.clone(), lease }, &stop);
        let record = Grouped::start(Record { pool: pool.clone() }, &stop);
        Self { pool, insert, record, stop }
    }

    /// The answer that a redelivered request had before, if this is that request to the byte. It needs no
    /// credential: who can say all of the request again has said it before.
    ///
    /// Without a message id, it is taken for any request that equals it and whose acknowledgement is not sure: rather
    /// no text than two.
    pub async fn recall(
        &self,
        group: GroupId,
        message_id: Option<&str>,
        request_sha256: &[u8; 32],
    ) -> Result<Option<Outcome>, Trouble> {
        let row = if let Some(message_id) = message_id {
            self.owner(group, message_id, "{}").await?
        } else {
            let find = || statements::unacknowledged(&self.pool, request_sha256);
            persist("find an unacknowledged request", &self.stop, find).await?
        };
        match row {
            Some(row) if row.came_from(request_sha256) => self.outcome_of(row).await.map(Some),
            _ => Ok(None),
        }
    }

    /// The broker has surely taken the acknowledgements of these requests, none of which has a message id: one that
    /// equals them is a request of its own.
    pub async fn acknowledged(&self, requests: &[[u8; 32]]) -> Result<(), Trouble> {
        persist("acknowledge", &self.stop, || statements::acknowledge(&self.pool, requests)).await
    }

    /// Begins a session under a key that nobody in its group holds, unless its message id is taken.
    pub async fn open(&self, opening: &Opening<'_>) -> Result<Opened, Trouble> {
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
            let inserted = self.insert.run(row).await?.and_then(|times| times.expires_at);
            let expires_at = match inserted {
                Some(expires_at) => expires_at,
                // Either a lost connection has hidden the commit of our own row, which is ours to send for as long as
                // nobody has settled it, or what we drew is taken.
                None => match self.by_id(id).await? {
                    Some(row) if row.in_hand() && !row.lease_over => {
                        row.expires_at.unwrap_or_else(OffsetDateTime::now_utc)
                    }
                    Some(_) => return Ok(Opened::Taken),
                    None if self.is_taken(about, asked).await? => return Ok(Opened::Taken),
                    None => {
                        tracing::debug!(group = %about.group, draw, "a session key was taken; drawing another");
                        continue;
                    }
                },
            };
            let phone = asked.phone.clone().unwrap_or_default();
            return Ok(Opened::New(Session {
                id,
                group: about.group.get(),
                key,
                text,
                phone,
                expires_at,
                begun,
                ttl,
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

    /// Stores a refusal that comes after the look at the message id: a repeat gets its stored answer instead.
    pub async fn refuse_new(
        &self,
        about: &About,
        asked: &Asked,
        refusal: Refusal,
    ) -> Result<Repeated, Trouble> {
        let id = Uuid::now_v7();
        loop {
            let stored = self.insert_refusal(id, about, asked, &refusal, true).await?;
            if stored || self.by_id(id).await?.is_some() {
                return Ok(Repeated::Finished(Outcome::Refused(refusal)));
            }
            if let Some(repeated) = self.repeat(about, asked).await? {
                return Ok(repeated);
            }
        }
    }

    /// Records what became of a text, and says what the invite's answer is: this, unless another has settled it.
    pub async fn record(&self, session: Session, fate: Fate) -> Result<Outcome, Trouble> {
        let id = session.id;
        let (status, sid, refusal) = match fate {
            Fate::Accepted { provider_message_id } => ("sent", Some(provider_message_id), None),
            Fate::Unknown(refusal) => ("unknown", None, Some(refusal)),
            Fate::Refused(refusal) if refusal.code.is_failure() => ("failed", None, Some(refusal)),
            Fate::Refused(refusal) => ("rejected", None, Some(refusal)),
        };
        let ended = Ended { id, status, provider_message_id: sid.clone(), refusal: refusal.clone() };
        let ours = self.record.run(ended).await?;
        match (ours, sid, refusal) {
            (true, _, Some(refusal)) => Ok(Outcome::Refused(refusal)),
            (true, Some(sid), None) => Ok(Outcome::Sent(session.sent(sid))),
            (_, sid, _) => self.settled_elsewhere(id, sid).await,
        }
    }

    /// The answer of a row that another worker has settled, or that a lost connection hid the record of.
    async fn settled_elsewhere(&self, id: Uuid, sid: Option<String>) -> Result<Outcome, Trouble> {
        if let Some(sid) = &sid {
            let late = || statements::accepted_after_all(&self.pool, id, sid);
            persist("accepted after all", &self.stop, late).await?;
        }
        self.by_id(id)
            .await?
            .and_then(Standing::outcome)
            .ok_or_else(|| Trouble::Defect("a session's row lost its outcome".to_owned()))
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

    /// What a taken message id stands for, waited for while it is in hand; `None` when it is free again.
    pub async fn repeat(&self, about: &About, asked: &Asked) -> Result<Option<Repeated>, Trouble> {
        let Some(message_id) = &about.message_id else { return Ok(None) };
        let Some(row) = self.owner(about.group, message_id, &asked.session_params).await? else {
            return Ok(None);
        };
        if row.released_id() {
            if about.redelivered && row.came_from(&about.request_sha256) {
                return self.outcome_of(row).await.map(|outcome| Some(Repeated::Finished(outcome)));
            }
            self.release(row.id).await?;
            return Ok(None);
        }
        if !row.asks_the_same(asked) {
            return Ok(Some(Repeated::Conflict));
        }
        self.outcome_of(row).await.map(|outcome| Some(Repeated::Finished(outcome)))
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

    /// The outcome of a row, waited for while the worker that began it has its time. After that, a text may
    /// have gone out, and nobody knows: the answer says so, and nothing is sent again.
    async fn outcome_of(&self, mut row: Standing) -> Result<Outcome, Trouble> {
        let id = row.id;
        let mut pause = Duration::from_millis(20);
        loop {
            if !row.in_hand() {
                let lost = || Trouble::Defect("a session's row lost its outcome".to_owned());
                return row.outcome().ok_or_else(lost);
            }
            if row.lease_over {
                let refusal = unknown();
                persist("abandon", &self.stop, || statements::abandon(&self.pool, id, &refusal)).await?;
            } else {
                tokio::select! {
                    () = self.stop.cancelled() => return Err(Trouble::Stopping),
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(1)),
                }
            }
            row = self.by_id(id).await?.ok_or_else(|| {
                Trouble::Defect("a session's row is gone while it was waited for".to_owned())
            })?;
        }
    }

    async fn owner(
        &self,
        group: GroupId,
        message_id: &str,
        params: &str,
    ) -> Result<Option<Standing>, Trouble> {
        let find = || statements::by_message_id(&self.pool, group, message_id, params);
        persist("find by message id", &self.stop, find).await
    }

    async fn by_id(&self, id: Uuid) -> Result<Option<Standing>, Trouble> {
        persist("find by id", &self.stop, || statements::by_id(&self.pool, id)).await
    }

    async fn release(&self, id: Uuid) -> Result<(), Trouble> {
        persist("release a message id", &self.stop, || statements::release_message_id(&self.pool, id)).await
    }
}

impl Session {
    /// What is left of it, if nobody joins.
    pub fn left(&self) -> Duration {
        self.ttl.saturating_sub(self.begun.elapsed())
    }

    fn sent(self, provider_message_id: String) -> Sent {
        Sent {
            session_id: self.id,
            group: self.group,
            session_key: self.key.as_str().to_owned(),
            invitation_text: self.text,
            phone: self.phone,
            expires_at: self.expires_at,
            provider_message_id,
        }
    }
}

/// The answer about a text that may have gone out.
pub fn unknown() -> Refusal {
    let message = "a text may have gone out; nobody can say, so do not send the invite again";
    Refusal::new(Code::OutcomeUnknown, message)
}
