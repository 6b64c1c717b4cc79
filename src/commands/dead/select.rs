//! Which dead letters a command is about: some by their ids, or all.

use crate::queue::dead::{DeadLetters, Held, ID_DIGITS, Kind, MOST};
use anyhow::bail;
use std::{collections::BTreeSet, fmt, str::FromStr, vec};

/// Fewer digits would often name several.
const SHORTEST: usize = 4;

/// An id, or how it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl FromStr for Prefix {
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

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, clap::Args)]
pub struct Which {
    /// Their ids, as `dead list` shows them, or how they begin
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<Prefix>,
    /// All that are in the queue now
    #[arg(long)]
    all: bool,
    /// With --all: only requests, or only replies
    #[arg(long, requires = "all", conflicts_with = "ids")]
    kind: Option<Kind>,
}

impl Which {
    /// Finds those that are named; all others are met one by one.
    pub async fn open(&self, dead: &mut DeadLetters) -> anyhow::Result<Source> {
        if self.all {
            return Ok(Source { named: None, kind: self.kind });
        }
        let found = take(dead, &self.ids).await?;
        let held: Vec<_> = found.into_iter().map(|(_, held)| held).collect();
        Ok(Source { named: Some(held.into_iter()), kind: None })
    }
}

/// The dead letters of one command, one after the other.
#[derive(Debug)]
pub struct Source {
    named: Option<vec::IntoIter<Held>>,
    kind: Option<Kind>,
}

impl Source {
    /// How many there are at most.
    pub fn most(&self, dead: &DeadLetters) -> usize {
        self.named.as_ref().map_or(dead.waiting.min(MOST) as usize, ExactSizeIterator::len)
    }

    pub async fn next(&mut self, dead: &mut DeadLetters) -> anyhow::Result<Option<Held>> {
        if let Some(named) = &mut self.named {
            return Ok(named.next());
        }
        while let Some(held) = dead.next().await? {
            if self.kind.is_none_or(|kind| held.letter.kind() == Some(kind)) {
                return Ok(Some(held));
            }
            dead.keep(held).await?;
        }
        Ok(None)
    }

    /// Leaves what has not been met in the queue.
    pub async fn keep_the_rest(self, dead: &mut DeadLetters) -> anyhow::Result<()> {
        for held in self.named.into_iter().flatten() {
            dead.keep(held).await?;
        }
        Ok(())
    }
}

/// Takes the named ones in hand, with their positions; the others stay. All ids that are wrong are told together.
pub async fn take(dead: &mut DeadLetters, ids: &[Prefix]) -> anyhow::Result<Vec<(u32, Held)>> {
    let mut found = Vec::new();
    while let Some(held) = dead.next().await? {
        if ids.iter().any(|prefix| held.letter.id.starts_with(&prefix.0)) {
            found.push((dead.seen, held));
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
    let looked = if dead.beyond() > 0 { format!(" among the first {MOST}") } else { String::new() };
    bail!(
        "{} (in {}{looked}; `dead list` shows the ids); nothing was done",
        faults.join("; "),
        dead.names.dead
    )
}

/// Equal messages have one id, and are one to whoever names it.
fn fault(prefix: &Prefix, found: &[(u32, Held)]) -> Option<String> {
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
        assert_eq!("3F9a".parse::<Prefix>().unwrap().to_string(), "3f9a");
        assert!("3f9a0c2d71be".parse::<Prefix>().is_ok());
        for wrong in ["", "3f9", "3f9a0c2d71be0", "3f9g", "\u{1b}[2J"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong:?}");
        }
    }
}
