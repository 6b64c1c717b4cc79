//! The dead letters that a command works on: some by their ids, or all.

use crate::{
    commands::groups::group_id,
    group_id::GroupId,
    moment::Moment,
    queue::dead::{DeadLetters, FetchedLetter, ID_DIGITS, Letter, LetterKind, MAX_READ},
};
use anyhow::bail;
use std::{collections::BTreeSet, fmt, str::FromStr, vec};
use time::OffsetDateTime;

/// Digits of an id at least: fewer would often name several messages.
const SHORTEST: usize = 4;

/// An id, or its first digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdPrefix(String);

impl FromStr for IdPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = (SHORTEST..=ID_DIGITS).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(format!(
                "an id is {ID_DIGITS} hex digits, of which {SHORTEST} will do; `dead list` shows them"
            ))
        }
    }
}

impl fmt::Display for IdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct SelectionArgs {
    /// Ids, as `dead list` shows them, or their first digits
    #[arg(value_name = "ID", required_unless_present_any = INSTEAD_OF_IDS, conflicts_with_all = INSTEAD_OF_IDS)]
    ids: Vec<IdPrefix>,
    /// All messages that are in the queue now, or those of them that match
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: LetterFilterArgs,
}

/// The arguments that select messages by what they are.
const INSTEAD_OF_IDS: [&str; 6] = ["all", "kind", "group", "code", "reason", "since"];

/// Which messages: those that match all that is given.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LetterFilterArgs {
    /// Only requests, or only replies
    #[arg(long)]
    kind: Option<LetterKind>,
    /// Only messages that name this group
    #[arg(long, value_parser = group_id)]
    group: Option<GroupId>,
    /// Only messages with this code, such as internal_error
    #[arg(long)]
    code: Option<String>,
    /// Only messages whose reason has this text in it, in any case
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only messages that were set aside at this time or later: how long ago (2h, 1d), or RFC 3339
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
}

impl LetterFilterArgs {
    pub(super) fn is_empty(&self) -> bool {
        let Self { kind, group, code, reason, since } = self;
        kind.is_none() && group.is_none() && code.is_none() && reason.is_none() && since.is_none()
    }

    pub(super) fn read(&self) -> LetterFilter {
        LetterFilter {
            kind: self.kind,
            group: self.group,
            code: self.code.clone(),
            reason: self.reason.as_deref().map(str::to_lowercase),
            since: self.since.map(|since| since.at(OffsetDateTime::now_utc())),
        }
    }
}

#[derive(Debug)]
pub(super) struct LetterFilter {
    kind: Option<LetterKind>,
    group: Option<GroupId>,
    code: Option<String>,
    /// In lower case.
    reason: Option<String>,
    since: Option<OffsetDateTime>,
}

impl LetterFilter {
    pub(super) fn matches(&self, letter: &Letter) -> bool {
        let has = |name: &str, test: &dyn Fn(&str) -> bool| letter.text(name).is_some_and(|text| test(&text));
        self.kind.is_none_or(|kind| letter.kind() == Some(kind))
            && self.code.as_ref().is_none_or(|code| has("x-code", &|text| text == code))
            && self.reason.as_ref().is_none_or(|part| has("x-reason", &|text| text.to_lowercase().contains(part)))
            && self.since.is_none_or(|since| letter.last_at().is_some_and(|at| at >= since))
            // Last, as it may have to read the body.
            && self.group.is_none_or(|group| letter.group() == Some(group))
    }
}

impl SelectionArgs {
    /// Finds the messages by their ids at once. All others are read one by one.
    pub(super) async fn open(&self, dead: &mut DeadLetters) -> anyhow::Result<Selection> {
        if self.ids.is_empty() {
            return Ok(Selection { named: None, filter: self.filter.read() });
        }
        let found = take(dead, &self.ids).await?;
        let held: Vec<_> = found.into_iter().map(|(_, held)| held).collect();
        Ok(Selection { named: Some(held.into_iter()), filter: self.filter.read() })
    }
}

/// The dead letters of one command, one after the other. Those that do not match stay in the queue, in their order.
#[derive(Debug)]
pub(super) struct Selection {
    named: Option<vec::IntoIter<FetchedLetter>>,
    filter: LetterFilter,
}

impl Selection {
    /// How many messages there are at most.
    pub(super) fn most(&self, dead: &DeadLetters) -> usize {
        self.named.as_ref().map_or(dead.waiting.min(MAX_READ) as usize, ExactSizeIterator::len)
    }

    pub(super) async fn next(&mut self, dead: &mut DeadLetters) -> anyhow::Result<Option<FetchedLetter>> {
        if let Some(named) = &mut self.named {
            return Ok(named.next());
        }
        while let Some(held) = dead.next().await? {
            if self.filter.matches(&held.letter) {
                return Ok(Some(held));
            }
            dead.keep(held).await?;
        }
        Ok(None)
    }

    /// Leaves the messages that were not read in the queue.
    pub(super) async fn keep_the_rest(self, dead: &mut DeadLetters) -> anyhow::Result<()> {
        for held in self.named.into_iter().flatten() {
            dead.keep(held).await?;
        }
        Ok(())
    }
}

/// Takes the messages with these ids, with their positions; the others stay. The error names all wrong ids together.
pub(super) async fn take(
    dead: &mut DeadLetters,
    ids: &[IdPrefix],
) -> anyhow::Result<Vec<(u32, FetchedLetter)>> {
    let mut found = Vec::new();
    while let Some(held) = dead.next().await? {
        if ids.iter().any(|prefix| held.letter.id.starts_with(&prefix.0)) {
            found.push((dead.read, held));
        } else {
            dead.keep(held).await?;
        }
    }
    let faults: Vec<String> = ids.iter().filter_map(|prefix| fault(prefix, &found)).collect();
    if faults.is_empty() {
        return Ok(found);
    }
    for (_, held) in found {
        dead.keep(held).await?;
    }
    let looked = if dead.unread() > 0 { format!(" among the first {MAX_READ}") } else { String::new() };
    bail!(
        "{} (in {}{looked}; `dead list` shows the ids); nothing was done",
        faults.join("; "),
        dead.names.dead
    )
}

/// What is wrong with an id. Equal messages have the same id, and count as one.
fn fault(prefix: &IdPrefix, found: &[(u32, FetchedLetter)]) -> Option<String> {
    let letters = || found.iter().map(|(_, held)| &held.letter).filter(|l| l.id.starts_with(&prefix.0));
    let different: BTreeSet<_> = letters().map(crate::queue::dead::Letter::digest).collect();
    match different.len() {
        0 => Some(format!("no message has the id {prefix}")),
        1 => None,
        several => {
            let ids: BTreeSet<_> = letters().map(|letter| letter.id.as_str()).collect();
            let ids: Vec<_> = ids.into_iter().collect();
            Some(format!("{several} messages have ids that begin with {prefix}: {}", ids.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_hex_and_its_beginning_will_do() {
        assert_eq!("3F9a".parse::<IdPrefix>().unwrap().to_string(), "3f9a");
        assert!("3f9a0c2d71be".parse::<IdPrefix>().is_ok());
        for wrong in ["", "3f9", "3f9a0c2d71be0", "3f9g", "\u{1b}[2J"] {
            assert!(wrong.parse::<IdPrefix>().is_err(), "{wrong:?}");
        }
    }
}
