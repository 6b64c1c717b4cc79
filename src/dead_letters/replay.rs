//! Replaying a dead letter: where it goes, and as what.

use super::{mask, row::NOT_DECODED};
use crate::{
    config::ReplyToAllow,
    db::{PAGE_LIMIT, StatementError, read_within},
    queue::{
        QueueNames,
        dead::{
            DeadLetterError, DeadLetters, FetchedLetter, Letter, LetterKind, Replay, ReplayResult, row_key,
        },
    },
    sessions::{
        lookup::{self, Ticket},
        steps::{self, Step},
    },
};
use serde::Serialize;
use sqlx::PgPool;
use std::collections::HashSet;
use uuid::Uuid;

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error("the query failed ({0}); messages that are not listed as replayed stay")]
    Query(String),
    #[error("the message {id}")]
    Letter { id: String, source: DeadLetterError },
    #[error(transparent)]
    Queue(#[from] DeadLetterError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReplayAction {
    Replay,
    /// A copy of one that is replayed is taken out with it.
    Drop,
    Stay,
}

/// What was done with one letter.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LetterReplay {
    pub(crate) id: String,
    pub(crate) kind: Option<LetterKind>,
    pub(crate) action: ReplayAction,
    /// Where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// The session that it is replayed by, without its credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_id: Option<Uuid>,
    /// Why it stays in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// What a message is replayed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplayForm {
    Request,
    /// Without its credential, by its row.
    Session(Uuid),
    Reply,
}

impl ReplayForm {
    const fn session(self) -> Option<Uuid> {
        match self {
            Self::Session(id) => Some(id),
            Self::Request | Self::Reply => None,
        }
    }
}

/// What is done with one message.
enum ReplayPlan {
    Publish(Box<Replay>, ReplayForm),
    /// A copy of one that was replayed.
    Drop,
    Stay(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplayMode {
    Publish,
    /// Says what would be done, and does nothing.
    DryRun,
    /// The same for a page that a person waits for: the database has little time.
    Preview,
}

/// Replays letters, one after the other.
#[derive(Debug)]
pub(crate) struct Replayer {
    pool: PgPool,
    allow: ReplyToAllow,
    mode: ReplayMode,
    /// Digests of replayed messages, of which copies may follow.
    copies: HashSet<[u8; 32]>,
}

impl Replayer {
    pub(crate) fn new(pool: PgPool, allow: ReplyToAllow, mode: ReplayMode) -> Self {
        Self { pool, allow, mode, copies: HashSet::new() }
    }

    /// Publishes the letter again, and removes it once that is confirmed. Otherwise it stays, and the answer says why.
    ///
    /// # Errors
    ///
    /// If the database or the broker cannot be asked. The letter then returns to the queue.
    pub(crate) async fn replay(
        &mut self,
        dead: &mut DeadLetters,
        held: FetchedLetter,
    ) -> Result<LetterReplay, ReplayError> {
        let letter = &held.letter;
        let (id, kind, copy_of) = (letter.id.clone(), letter.kind(), letter.copy_of());
        let is_dry = self.mode != ReplayMode::Publish;
        let mut done =
            LetterReplay { id, kind, action: ReplayAction::Stay, to: None, session_id: None, why: None };
        match self.plan(letter, &dead.names).await? {
            ReplayPlan::Stay(why) => {
                done.why = Some(why);
                dead.keep(held).await?;
            }
            ReplayPlan::Drop => {
                done.action = ReplayAction::Drop;
                if is_dry { dead.keep(held).await? } else { dead.drop(&held).await? }
            }
            ReplayPlan::Publish(replay, by) => {
                let result = if is_dry {
                    dead.keep(held).await?;
                    ReplayResult::Confirmed
                } else {
                    let published = dead.replay(held, &replay).await;
                    published.map_err(|source| ReplayError::Letter { id: done.id.clone(), source })?
                };
                done.why = why_it_stays(result, &replay.queue, by);
                done.to = Some(mask::known(&replay.queue));
                if matches!(result, ReplayResult::Confirmed | ReplayResult::ConfirmedNotRemoved) {
                    done.action = ReplayAction::Replay;
                    done.session_id = by.session();
                    if let Some(session) = done.session_id {
                        self.note(session, &done.id).await;
                    }
                    self.copies.extend(copy_of);
                }
            }
        }
        Ok(done)
    }

    /// What [`Self::replay`] would do with the letter, without the queue.
    ///
    /// # Errors
    ///
    /// If the database cannot be asked.
    pub(crate) async fn preview(
        &self,
        letter: &Letter,
        names: &QueueNames,
    ) -> Result<LetterReplay, ReplayError> {
        let (id, kind) = (letter.id.clone(), letter.kind());
        let stays =
            LetterReplay { id, kind, action: ReplayAction::Stay, to: None, session_id: None, why: None };
        Ok(match self.plan(letter, names).await? {
            ReplayPlan::Stay(why) => LetterReplay { why: Some(why), ..stays },
            ReplayPlan::Drop => LetterReplay { action: ReplayAction::Drop, ..stays },
            ReplayPlan::Publish(replay, by) => LetterReplay {
                action: ReplayAction::Replay,
                to: Some(mask::known(&replay.queue)),
                session_id: by.session(),
                ..stays
            },
        })
    }

    async fn plan(&self, letter: &Letter, names: &QueueNames) -> Result<ReplayPlan, ReplayError> {
        if letter.copy_of().is_some_and(|copy| self.copies.contains(&copy)) {
            return Ok(ReplayPlan::Drop);
        }
        Ok(match letter.kind() {
            None if !letter.is_decoded => ReplayPlan::Stay(NOT_DECODED.to_owned()),
            None => ReplayPlan::Stay("its x-kind is unknown; no worker put it there".to_owned()),
            Some(LetterKind::Reply) => match letter.as_reply(names, &self.allow) {
                Ok(replay) => ReplayPlan::Publish(Box::new(replay), ReplayForm::Reply),
                Err(why) => ReplayPlan::Stay(mask::known(&why)),
            },
            Some(LetterKind::Request) => match self.row(letter).await? {
                Some(row) => {
                    let replay = letter.as_retry_copy(names, row.session, row.ticket);
                    ReplayPlan::Publish(Box::new(replay), ReplayForm::Session(row.session))
                }
                None => ReplayPlan::Publish(Box::new(letter.as_request(names)), ReplayForm::Request),
            },
        })
    }

    /// The row of exactly this request, if its sender was authenticated. Its credential may have expired meanwhile.
    async fn row(&self, letter: &Letter) -> Result<Option<Ticket>, ReplayError> {
        if letter.is_retry_copy() {
            return Ok(None);
        }
        let request = letter.request();
        let (group, message_id) = row_key(&request);
        let sha256 = request.sha256();
        if self.mode == ReplayMode::Preview {
            let message_id = message_id.map(str::to_owned);
            let read = read_within(&self.pool, PAGE_LIMIT, move |db| {
                Box::pin(
                    async move { lookup::authenticated(db, group, message_id.as_deref(), &sha256).await },
                )
            });
            return read.await.map_err(|why| ReplayError::Query(why.to_string()));
        }
        let row = lookup::authenticated(&self.pool, group, message_id, &sha256).await;
        row.map_err(|error| ReplayError::Query(error.summary()))
    }

    /// Keeps the replay as a step of its session. The replay is done, so a failure only costs the step.
    async fn note(&self, session: Uuid, letter: &str) {
        if self.mode == ReplayMode::Publish {
            let _ = steps::note(&self.pool, session, &Step::Replayed { letter: letter.to_owned() }).await;
        }
    }
}

fn why_it_stays(result: ReplayResult, queue: &str, by: ReplayForm) -> Option<String> {
    match result {
        ReplayResult::Confirmed => None,
        ReplayResult::ConfirmedNotRemoved => Some(
            "it was published, and the connection to the broker ended before its dead letter was removed: drop it, and do not \
             replay it again"
                .to_owned(),
        ),
        ReplayResult::Unroutable => Some(unroutable(queue, by)),
        ReplayResult::Refused => {
            Some(format!("the queue {} does not take it; is it full?", mask::known(queue)))
        }
    }
}

fn unroutable(queue: &str, by: ReplayForm) -> String {
    let queue = mask::known(queue);
    match by {
        ReplayForm::Reply => format!("the queue {queue} is not there"),
        ReplayForm::Request | ReplayForm::Session(_) => {
            format!("the queue {queue} is not there; a worker declares it")
        }
    }
}
