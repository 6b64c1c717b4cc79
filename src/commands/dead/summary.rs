//! `dead summary`: how many messages were set aside, and why.

use super::{
    select::LetterFilterArgs,
    words::{held_by_others, messages, not_looked_at},
};
use crate::{
    config::BrokerConfig,
    dead_letters::{DeadLetterRow, mask, with},
    output::{self, Format},
    queue::dead::LetterKind,
};
use serde::Serialize;
use std::{cmp::Reverse, collections::HashMap};

pub(super) const EXAMPLES: &str = "\
Examples:
  session-invite dead summary
  session-invite dead summary --since 1d --json

The same filters select these messages for `dead list`, `dead replay` and `dead drop`.";

/// What messages are counted by. A command reads a bounded number of messages, so there are no more of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
struct DeadCause {
    kind: Option<LetterKind>,
    group: Option<i64>,
    code: Option<String>,
    reason: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadCount {
    messages: usize,
    /// When the first and the last of them was set aside.
    first_at: Option<String>,
    last_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct DeadCountRow {
    #[serde(flatten)]
    cause: DeadCause,
    #[serde(flatten)]
    count: DeadCount,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadSummary {
    queue: String,
    /// All messages of the queue.
    waiting: u32,
    /// Messages that match.
    messages: usize,
    /// Messages that were not looked at, as there are too many.
    beyond: u32,
    /// Messages that another command, or the console, held or took while this one read.
    held: u32,
    causes: Vec<DeadCountRow>,
}

impl DeadCount {
    fn add(&mut self, at: Option<String>) {
        self.messages += 1;
        // The times are RFC 3339 in UTC, to the second: they are in the order of their texts.
        let Some(at) = at else { return };
        if self.first_at.as_ref().is_none_or(|first| at < *first) {
            self.first_at = Some(at.clone());
        }
        if self.last_at.as_ref().is_none_or(|last| at > *last) {
            self.last_at = Some(at);
        }
    }
}

pub(super) async fn run(
    config: BrokerConfig,
    filter: &LetterFilterArgs,
    format: Format,
) -> anyhow::Result<()> {
    let wanted = filter.read();
    let mut counts: HashMap<DeadCause, DeadCount> = HashMap::new();
    let (queue, waiting, beyond, held) = with(config, async |dead| {
        dead.fetch_together();
        while let Some(held) = dead.next().await? {
            if wanted.matches(&held.letter) {
                let DeadLetterRow { kind, group, code, reason, .. } =
                    DeadLetterRow::new(&held.letter, dead.read);
                let at = held.letter.text("x-last-at").map(|at| mask::time(&at));
                counts.entry(DeadCause { kind, group, code, reason }).or_default().add(at);
            }
            dead.keep(held).await?;
        }
        anyhow::Ok((dead.names.dead.clone(), dead.waiting, dead.unread(), dead.left()))
    })
    .await?;
    let mut causes: Vec<_> = counts.into_iter().map(|(cause, count)| DeadCountRow { cause, count }).collect();
    causes.sort_by_cached_key(|row| {
        let DeadCause { kind, group, code, reason } = &row.cause;
        (Reverse(row.count.messages), kind.map(LetterKind::as_str), *group, code.clone(), reason.clone())
    });
    let messages = causes.iter().map(|row| row.count.messages).sum();
    print(&DeadSummary { queue, waiting, messages, beyond, held, causes }, format)
}

fn print(summary: &DeadSummary, format: Format) -> anyhow::Result<()> {
    let DeadSummary { queue, waiting, messages: counted, beyond, held, causes } = summary;
    let mut sentence = match (*waiting as usize, *counted) {
        (0, _) => format!("{queue} is empty"),
        (waiting, counted) if waiting == counted => format!("{} in {queue}", messages(counted)),
        (waiting, counted) => format!("{counted} that match, of {} in {queue}", messages(waiting)),
    };
    if *beyond > 0 {
        sentence += &not_looked_at(*beyond);
    }
    if *held > 0 {
        sentence += &held_by_others(*held);
    }
    if format.json {
        return format.done(summary, &sentence);
    }
    if !causes.is_empty() {
        format.lines(["MESSAGES", "KIND", "GROUP", "CODE", "FIRST", "LAST", "REASON"], 6, causes, cells)?;
        output::print("")?;
    }
    output::print(&sentence)
}

fn cells(row: &DeadCountRow) -> [String; 7] {
    let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let DeadCountRow { cause, count } = row;
    [
        count.messages.to_string(),
        cause.kind.map_or("-", LetterKind::as_str).to_owned(),
        shown(&cause.group.map(|group| group.to_string())),
        shown(&cause.code),
        shown(&count.first_at),
        shown(&count.last_at),
        shown(&cause.reason),
    ]
}
