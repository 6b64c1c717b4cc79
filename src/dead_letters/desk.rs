//! The dead letters for operators who share a process: one reading at a time, as a reading holds the letters that it has read,
//! and nobody else would see them.

use super::{
    find::{InviteLetters, LetterFetch, LettersOf, ReadLimits, matching},
    record::LetterRecord,
    replay::{LetterReplay, ReplayAction, ReplayError, ReplayMode, Replayer},
    row::{DeadLetterRow, LetterAddress},
    view::DeadLetterView,
    work::finish,
};
use crate::{
    audit::Operator,
    config::{BrokerConfig, ReplyToAllow},
    db::StatementError,
    queue::{
        QueueNames,
        dead::{DeadLetterError, DeadLetters, FetchedLetter, Letter},
    },
};
use sqlx::PgPool;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::timeout,
};

/// Letters of a list. It reads no more than it shows. They return to the queue's front behind others that were read before. As
/// all readings take so many at least, the same letters stay the first ones.
const LISTED: u32 = 50;
/// How long all operators are shown the same list.
const SHOWN_FOR: Duration = Duration::from_secs(2);
/// Letters among which one is looked for. Mostly it is among the first. Other operators wait meanwhile; the commands look further.
const SEARCHED: u32 = 500;
/// How long the letters of a list, or of an invite, are read, or one is looked for.
const READ_WITHIN: Duration = Duration::from_millis(1_500);
/// How long a person waits for others, or for the broker, before a page says so.
const WAITS_FOR: Duration = Duration::from_secs(5);
/// How long a change of one letter may take.
const CHANGES_WITHIN: Duration = Duration::from_secs(15);

/// Why nothing was done, or not all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeskError {
    #[error("another operator of this gateway works on the dead letters; try again in a moment")]
    Busy,
    #[error("the broker did not answer in time")]
    Slow,
    #[error("it is not among the first {} of {} dead letters", .0.read, .0.waiting)]
    NotFound(LetterMiss),
    #[error(transparent)]
    Queue(#[from] DeadLetterError),
    #[error("{}", chain(.0))]
    Replay(#[from] ReplayError),
    #[error("the audit could not be written ({0}), so nothing was done")]
    NotBegun(String),
    #[error(
        "the broker did not answer within {} s, so it is not known whether it was done: look at the dead letters and at the audit",
        CHANGES_WITHIN.as_secs()
    )]
    NotKnown,
    #[error("it was done, but the audit has only its beginning ({0})")]
    NotEnded(String),
}

/// How far a letter was looked for that was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LetterMiss {
    /// Letters that were looked at.
    pub(crate) read: u32,
    /// Letters in the queue, without those that others hold.
    pub(crate) waiting: u32,
}

/// An error with its causes.
fn chain(error: &ReplayError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// The first letters of the queue.
#[derive(Debug)]
pub(crate) struct LetterPage {
    pub(crate) letters: Vec<DeadLetterRow>,
    /// Letters in the queue, without those that others hold.
    pub(crate) waiting: u32,
    /// Whether there was no time for all of them, or others held some.
    pub(crate) is_incomplete: bool,
}

/// A letter, and what its replay would do.
#[derive(Debug)]
pub(crate) struct ShownLetter {
    pub(crate) view: DeadLetterView,
    /// An error if the database could not be asked.
    pub(crate) plan: Result<LetterReplay, DeskError>,
}

/// What is done with a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LetterChange {
    Replay,
    Drop,
}

/// What became of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LetterFate {
    Done,
    /// It stays where it is, for this reason.
    Stays(String),
}

/// What the operators of a process see of the dead letters, and do with them.
#[derive(Debug)]
pub(crate) struct LetterDesk {
    config: BrokerConfig,
    allow: ReplyToAllow,
    /// The operator whose turn it is holds it. It has the last list.
    list: Mutex<Option<(Instant, Arc<LetterPage>)>>,
}

impl LetterDesk {
    /// `allow` is where replies may go, as the workers have it.
    pub(crate) fn new(config: BrokerConfig, allow: ReplyToAllow) -> Self {
        Self { config, allow, list: Mutex::default() }
    }

    /// The first letters, as they were at most two seconds ago.
    pub(crate) async fn list(&self) -> Result<Arc<LetterPage>, DeskError> {
        let mut last = self.turn().await?;
        if let Some((at, page)) = &*last
            && at.elapsed() < SHOWN_FOR
        {
            return Ok(page.clone());
        }
        let reading = read_list(self.config.clone());
        let page = Arc::new(timeout(WAITS_FOR, reading).await.map_err(|_| DeskError::Slow)??);
        *last = Some((Instant::now(), page.clone()));
        Ok(page)
    }

    /// The letters of an invite, among the first of the queue.
    pub(crate) async fn of_invite(&self, of: &LettersOf<'_>) -> Result<InviteLetters, DeskError> {
        let _turn = self.turn().await?;
        let limits = ReadLimits { fetch: LetterFetch::Single, most: LISTED, within: READ_WITHIN };
        let reading = matching(self.config.clone(), limits, of);
        Ok(timeout(WAITS_FOR, reading).await.map_err(|_| DeskError::Slow)??)
    }

    /// One letter.
    pub(crate) async fn show(
        &self,
        pool: &PgPool,
        address: &LetterAddress,
    ) -> Result<ShownLetter, DeskError> {
        let looking = async {
            let mut dead = self.open().await?;
            let done = look(&mut dead, address).await;
            finish(dead, done).await
        };
        let looked = {
            let _turn = self.turn().await?;
            timeout(WAITS_FOR, looking).await.map_err(|_| DeskError::Slow)?
        };
        let (view, letter) = looked?;
        // After the turn: no other operator waits for the database.
        let names = QueueNames::new(&self.config.queue_prefix);
        let plan = self.replayer(pool, ReplayMode::Preview).preview(&letter, &names).await;
        Ok(ShownLetter { view, plan: plan.map_err(DeskError::from) })
    }

    /// Publishes a letter again, as `dead replay` does, and takes its copies out. `operator` is who does it with the letter of
    /// an id, or nobody while the database is away.
    pub(crate) async fn replay(
        &self,
        address: &LetterAddress,
        operator: impl FnOnce(&str) -> Option<Operator>,
    ) -> Result<LetterFate, DeskError> {
        self.change(address, LetterChange::Replay, operator).await
    }

    /// Deletes a letter with its copies, as `dead drop` does.
    pub(crate) async fn discard(
        &self,
        address: &LetterAddress,
        operator: impl FnOnce(&str) -> Option<Operator>,
    ) -> Result<LetterFate, DeskError> {
        self.change(address, LetterChange::Drop, operator).await
    }

    /// Each wait has a limit, as others wait for their turn, and lapin never wakes a task that waits on a dead channel. What
    /// is dropped at a limit drops its connection, and the broker takes the letters back.
    async fn change(
        &self,
        address: &LetterAddress,
        change: LetterChange,
        operator: impl FnOnce(&str) -> Option<Operator>,
    ) -> Result<LetterFate, DeskError> {
        let mut last = self.turn().await?;
        *last = None;
        let finding = timeout(WAITS_FOR, self.find(address)).await;
        let (mut dead, found) = finding.map_err(|_| DeskError::Slow)??;
        let Some(operator) = found.first().and_then(|(_, first)| operator(&first.letter.id)) else {
            return Err(not_begun(dead, "the database is away".to_owned()).await);
        };
        let group = found.first().and_then(|(_, first)| first.letter.group());
        let mut record = match recorded(LetterRecord::begin(&operator, change.done(), group)).await {
            Ok(record) => record,
            Err(why) => return Err(not_begun(dead, why).await),
        };
        let replayer = self.replayer(operator.pool(), ReplayMode::Publish);
        let changing = async {
            let done = change.apply(&mut dead, found, replayer, &mut record).await;
            finish(dead, done).await
        };
        let Ok(done) = timeout(CHANGES_WITHIN, changing).await else {
            // If this fails too, the audit has the beginning alone, which says the same.
            let _ = recorded(record.end_unknown()).await;
            return Err(DeskError::NotKnown);
        };
        let ended = recorded(record.end()).await;
        let fate = done?;
        ended.map_err(DeskError::NotEnded)?;
        Ok(fate)
    }

    /// The queue with the letter and its copies.
    async fn find(
        &self,
        address: &LetterAddress,
    ) -> Result<(DeadLetters, Vec<(u32, FetchedLetter)>), DeskError> {
        let mut dead = self.open().await?;
        match take(&mut dead, address).await {
            Ok(found) => Ok((dead, found)),
            Err(error) => {
                finish::<(), _>(dead, Ok::<_, DeskError>(())).await?;
                Err(error)
            }
        }
    }

    /// Opens the queue to look for one letter.
    async fn open(&self) -> Result<DeadLetters, DeadLetterError> {
        let mut dead = DeadLetters::open(self.config.clone(), SEARCHED).await?;
        dead.renew_late();
        Ok(dead)
    }

    fn replayer(&self, pool: &PgPool, mode: ReplayMode) -> Replayer {
        Replayer::new(pool.clone(), self.allow.clone(), mode)
    }

    async fn turn(&self) -> Result<MutexGuard<'_, Option<(Instant, Arc<LetterPage>)>>, DeskError> {
        timeout(WAITS_FOR, self.list.lock()).await.map_err(|_| DeskError::Busy)
    }
}

async fn read_list(config: BrokerConfig) -> Result<LetterPage, DeskError> {
    let (page, renewed) = read_first(config.clone()).await?;
    // Copies of those are at the queue's end now. Others are the first.
    if renewed > 0 { Ok(read_first(config).await?.0) } else { Ok(page) }
}

/// The first letters, and how many of them were replaced by copies.
async fn read_first(config: BrokerConfig) -> Result<(LetterPage, u32), DeskError> {
    let mut dead = DeadLetters::open(config, LISTED).await?;
    let done = list_in(&mut dead).await.map(|page| (page, dead.renewed()));
    finish(dead, done).await
}

async fn list_in(dead: &mut DeadLetters) -> Result<LetterPage, DeskError> {
    let ends = Instant::now() + READ_WITHIN;
    let mut letters = Vec::new();
    while Instant::now() < ends
        && let Some(held) = dead.next().await?
    {
        letters.push(DeadLetterRow::new(&held.letter, dead.read));
        dead.keep(held).await?;
    }
    // Letters that were read before may have another order in the queue.
    letters.sort_by(|a, b| (&a.last_at, &a.id).cmp(&(&b.last_at, &b.id)));
    Ok(LetterPage { letters, waiting: dead.waiting, is_incomplete: dead.has_more() })
}

/// The letter, as a page shows it and as it is. It stays in the queue.
async fn look(
    dead: &mut DeadLetters,
    address: &LetterAddress,
) -> Result<(DeadLetterView, Letter), DeskError> {
    let found = take(dead, address).await?;
    let copies = found.len();
    let mut first = None;
    for (position, held) in found {
        first.get_or_insert_with(|| {
            (DeadLetterView::for_page(&held.letter, position, copies), held.letter.clone())
        });
        dead.keep(held).await?;
    }
    first.ok_or_else(|| miss(dead))
}

/// Leaves the queue as it is.
async fn not_begun(dead: DeadLetters, why: String) -> DeskError {
    // What is not closed in time is dropped, which closes it too.
    let _ = timeout(WAITS_FOR, dead.close()).await;
    DeskError::NotBegun(why)
}

/// Waits for the audit, but not for long.
async fn recorded<T>(writing: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, String> {
    let written = timeout(WAITS_FOR, writing).await;
    written.map_err(|_| "the database did not answer in time".to_owned())?.map_err(|error| error.summary())
}

impl LetterChange {
    /// What the audit calls it.
    const fn done(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Drop => "dropped",
        }
    }

    /// Does it with the letter and its copies. `record` has those that it was done with, also after an error.
    async fn apply(
        self,
        dead: &mut DeadLetters,
        found: Vec<(u32, FetchedLetter)>,
        mut replayer: Replayer,
        record: &mut LetterRecord<'_>,
    ) -> Result<LetterFate, DeskError> {
        let mut fates = Vec::new();
        for (_, held) in found {
            if self == Self::Drop {
                dead.drop(&held).await?;
                record.add(held.letter.id);
                continue;
            }
            let replayed = replayer.replay(dead, held).await?;
            fates.push(replayed.why.map_or(LetterFate::Done, LetterFate::Stays));
            if replayed.action == ReplayAction::Replay {
                record.add(replayed.id);
            }
        }
        Ok(fates.into_iter().next().unwrap_or(LetterFate::Done))
    }
}

/// Takes the letter, with its copies among the first of the queue. All others stay where they are.
async fn take(
    dead: &mut DeadLetters,
    address: &LetterAddress,
) -> Result<Vec<(u32, FetchedLetter)>, DeskError> {
    let ends = Instant::now() + READ_WITHIN;
    let mut found = Vec::new();
    while if found.is_empty() { Instant::now() < ends } else { dead.read < LISTED }
        && let Some(held) = dead.next().await?
    {
        if address.names(&held.letter) {
            found.push((dead.read, held));
        } else {
            dead.keep(held).await?;
        }
    }
    if found.is_empty() { Err(miss(dead)) } else { Ok(found) }
}

fn miss(dead: &DeadLetters) -> DeskError {
    DeskError::NotFound(LetterMiss { read: dead.read, waiting: dead.waiting })
}
