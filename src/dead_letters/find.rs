//! The dead letters of one invite.

use super::{row::DeadLetterRow, work::finish};
use crate::{
    config::BrokerConfig,
    group_id::GroupId,
    queue::dead::{DeadLetterError, DeadLetters, Letter},
    sessions::{lookup::SessionDetails, trace::Wanted},
};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// Letters that are shown at most.
const SHOWN: usize = 20;
/// How long opening and closing the queue may take, beside reading it.
const OPENING_WITHIN: Duration = Duration::from_secs(5);

/// A dead letter, and when it was set aside.
#[derive(Debug)]
pub(crate) struct InviteLetter {
    pub(crate) at: Option<OffsetDateTime>,
    pub(crate) row: DeadLetterRow,
}

/// The dead letters that match.
#[derive(Debug, Default)]
pub(crate) struct InviteLetters {
    pub(crate) found: Vec<InviteLetter>,
    /// Letters that are too far back in the queue to be read.
    pub(crate) unread: u32,
    /// Why there may be more among the others, in words.
    pub(crate) incomplete: Option<String>,
}

impl InviteLetters {
    fn add(&mut self, letter: &Letter, position: u32) {
        if self.found.len() < SHOWN {
            self.found.push(InviteLetter { at: letter.last_at(), row: DeadLetterRow::new(letter, position) });
        }
    }
}

/// Which dead letters belong to an invite.
#[derive(Debug)]
pub(crate) struct LettersOf<'a> {
    session: Option<Uuid>,
    group: Option<GroupId>,
    ids: Vec<&'a str>,
}

impl<'a> LettersOf<'a> {
    /// The letters of the session, or that name its message or correlation id.
    pub(crate) fn session(session: &'a SessionDetails) -> Self {
        let ids = [&session.message_id, &session.correlation_id].into_iter().flatten();
        Self {
            session: Some(session.id),
            group: GroupId::new(session.group_id),
            ids: ids.map(String::as_str).collect(),
        }
    }

    /// The letters that name the id, for an invite without a session.
    pub(crate) fn id(wanted: &'a Wanted) -> Self {
        Self { session: None, group: wanted.group, ids: vec![&wanted.id] }
    }

    fn has(&self, letter: &Letter) -> bool {
        letter.is_of(self.session, self.group, &self.ids)
    }
}

/// How letters are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LetterFetch {
    /// By a process that has other work, whose memory large letters must not fill.
    Single,
    /// By a command.
    Together,
}

/// How many letters are read at most, for how long, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadLimits {
    pub(crate) fetch: LetterFetch,
    pub(crate) most: u32,
    pub(crate) within: Duration,
}

/// Reads messages within the limits, and leaves all of them in the queue.
pub(crate) async fn matching(
    config: BrokerConfig,
    ReadLimits { fetch, most, within }: ReadLimits,
    of: &LettersOf<'_>,
) -> Result<InviteLetters, DeadLetterError> {
    let mut letters = InviteLetters::default();
    let reading = async {
        let mut dead = DeadLetters::open(config, most).await?;
        if fetch == LetterFetch::Together {
            dead.fetch_together();
        }
        let done = read(&mut dead, &mut letters, within, of).await;
        finish(dead, done).await
    };
    match timeout(within + OPENING_WITHIN, reading).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if letters.found.is_empty() => return Err(error),
        Ok(Err(error)) => letters.incomplete = Some(error.to_string()),
        Err(_) => letters.incomplete = Some(too_slow(within)),
    }
    Ok(letters)
}

async fn read(
    dead: &mut DeadLetters,
    letters: &mut InviteLetters,
    within: Duration,
    of: &LettersOf<'_>,
) -> Result<(), DeadLetterError> {
    let ends = Instant::now() + within;
    letters.unread = dead.unread();
    while let Some(held) = dead.next().await? {
        if of.has(&held.letter) {
            letters.add(&held.letter, dead.read);
        }
        dead.keep(held).await?;
        if Instant::now() >= ends && dead.has_more() {
            letters.incomplete = Some(too_slow(within));
            return Ok(());
        }
    }
    if dead.has_more() {
        letters.incomplete = Some("another command or the console was reading them".to_owned());
    }
    Ok(())
}

fn too_slow(within: Duration) -> String {
    format!("reading them took longer than {:.1} s", within.as_secs_f64())
}
