//! `session-invite dead list | show | replay | drop`: what the worker set aside, and what becomes of it.

mod entry;
mod mask;
mod replay;
mod report;
mod select;
mod show;
mod words;
mod work;

use crate::{
    config::{BrokerArgs, BrokerConfig},
    output::{self, Format},
    queue::dead::{Kind, MOST},
};
use anyhow::Context;
use entry::Entry;
use select::{Prefix, Which};
use serde_json::json;
use words::{messages, not_looked_at};
use work::with;

const EXAMPLES: &str = "\
Examples:
  session-invite dead list
  session-invite dead show 3f9a0c2d71be
  session-invite dead replay 3f9a0c2d71be
  session-invite dead replay --all --kind reply --rate 20
  session-invite dead drop --all --kind reply --yes

Looking takes nothing out of the queue. An id is the same each time, and its beginning will do.
What comes while a command runs is left to the next one, and so is what another has in hand.";

const LIST_EXAMPLES: &str = "\
Examples:
  session-invite dead list --limit 200
  session-invite dead list --kind reply --json";

const SHOW_EXAMPLES: &str = "\
Examples:
  session-invite dead show 3f9a0c2d71be
  session-invite dead show 3f9a --json

Credentials, phone numbers, session keys and texts are masked, and so is whatever might be one of them.";

const DROP_EXAMPLES: &str = "\
Examples:
  session-invite dead drop 3f9a0c2d71be 08cc51d2a6f0
  session-invite dead drop --all --kind reply --yes

What is dropped is gone. The invites that were authenticated are still in `sessions list`.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What was set aside, and why
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Only requests, or only replies
        #[arg(long)]
        kind: Option<Kind>,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)),
              value_name = "N")]
        limit: u32,
    },
    /// All of one message that may be seen
    #[command(after_help = SHOW_EXAMPLES)]
    Show { id: Prefix },
    /// Publish messages once more, where they were meant to go
    Replay(replay::Args),
    /// Take messages out of the queue, for good
    #[command(after_help = DROP_EXAMPLES)]
    Drop {
        #[command(flatten)]
        which: Which,
        /// Needed with --all: nobody can bring them back
        #[arg(long, required_if_eq("all", "true"))]
        yes: bool,
    },
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let (config, format) = (super::broker(&args.broker)?, args.format);
    match args.command {
        Command::List { kind, limit } => list(config, kind, limit, format).await,
        Command::Show { id } => {
            let (letter, position, copies) = with(config, async |dead| {
                let mut found = select::take(dead, &[id]).await?;
                let copies = found.len();
                let (position, first) = found.pop().context("nothing was found")?;
                let letter = first.letter.clone();
                for (_, held) in found.into_iter().chain([(position, first)]) {
                    dead.keep(held).await?;
                }
                Ok((letter, position, copies))
            })
            .await?;
            show::print(&letter, position, copies, format)
        }
        Command::Replay(args) => replay::run(args, config, format).await,
        Command::Drop { which, yes: _ } => discard(config, &which, format).await,
    }
}

async fn list(config: BrokerConfig, kind: Option<Kind>, limit: u32, format: Format) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    let (queue, waiting, seen, beyond) = with(config, async |dead| {
        while entries.len() < limit as usize
            && let Some(held) = dead.next().await?
        {
            if kind.is_none_or(|kind| held.letter.kind() == Some(kind)) {
                entries.push(Entry::new(&held.letter, dead.seen));
            }
            dead.keep(held).await?;
        }
        Ok((dead.names.dead.clone(), dead.waiting as usize, dead.seen, dead.beyond()))
    })
    .await?;
    let all = format!("{} in {queue}", messages(waiting.max(entries.len())));
    let mut shown = match (kind, entries.len()) {
        (_, 0) if seen == 0 => format!("{queue} is empty"),
        (None, shown) if shown >= waiting => all,
        (None, shown) => format!("the first {shown} of {all}"),
        (Some(kind), shown) => format!("{shown} of kind {}, of {all}", kind.as_str()),
    };
    if seen == MOST && beyond > 0 {
        shown += &not_looked_at(beyond);
    } else if entries.len() == limit as usize && entries.len() < waiting {
        shown += "; --limit shows more";
    }
    if format.json {
        format.lines(Entry::HEADER, Entry::REASON, &entries, Entry::cells)?;
        // Programs read the rest from there.
        if entries.len() < waiting {
            eprintln!("{shown}");
        }
        return Ok(());
    }
    if !entries.is_empty() {
        format.lines(Entry::HEADER, Entry::REASON, &entries, Entry::cells)?;
        output::print("")?;
    }
    output::print(&shown)
}

async fn discard(config: BrokerConfig, which: &Which, format: Format) -> anyhow::Result<()> {
    let mut dropped = Vec::new();
    let (queue, waiting, beyond) = with(config, async |dead| {
        let mut source = which.open(dead).await?;
        while let Some(held) = source.next(dead).await? {
            dead.drop(&held).await?;
            dropped.push(held.letter.id);
        }
        Ok((dead.names.dead.clone(), dead.waiting as usize, dead.beyond()))
    })
    .await?;
    let left = waiting.saturating_sub(dropped.len());
    let mut sentence = format!("{} dropped, {left} left in {queue}", messages(dropped.len()));
    if beyond > 0 {
        sentence += &not_looked_at(beyond);
    }
    format.done(&json!({ "dropped": dropped.len(), "left": left, "messages": dropped }), &sentence)
}
