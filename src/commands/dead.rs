//! `session-invite dead list | summary | show | replay | drop`: the dead letters, which the worker set aside.

mod replay;
mod report;
mod select;
mod show;
mod summary;
mod words;

use crate::{
    audit::Operator,
    config::{BrokerArgs, BrokerConfig, DatabaseArgs},
    dead_letters::{DeadLetterRow, DeadLetterView, LetterRecord, with},
    output::{self, Format},
    queue::dead::MAX_READ,
};
use anyhow::Context;
use select::{IdPrefix, LetterFilterArgs, SelectionArgs};
use serde_json::json;
use words::{messages, not_looked_at};

const EXAMPLES: &str = "\
Examples:
  session-invite dead list
  session-invite dead summary
  session-invite dead show 3f9a0c2d71be
  session-invite dead replay 3f9a0c2d71be
  session-invite dead replay --group 72 --since 2h
  session-invite dead drop --all --kind reply --yes

Looking takes nothing out of the queue. An id is the same each time, and its first 4 digits will do.
A command leaves out messages that come while it runs, and those that another command is working on.";

const LIST_EXAMPLES: &str = "\
Examples:
  session-invite dead list --limit 200
  session-invite dead list --group 72 --code internal_error --since 2h
  session-invite dead list --reason 'statement' --json";

const SHOW_EXAMPLES: &str = "\
Examples:
  session-invite dead show 3f9a0c2d71be
  session-invite dead show 3f9a --json

Credentials, phone numbers, session keys and texts are masked, and so is all that might be one of them.";

const DROP_EXAMPLES: &str = "\
Examples:
  session-invite dead drop 3f9a0c2d71be 08cc51d2a6f0
  session-invite dead drop --all --kind reply --yes

A dropped message is deleted. The invites that were authenticated are still in `sessions list`.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum DeadCommand {
    /// List what was set aside, and why
    #[command(after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        filter: LetterFilterArgs,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_READ)),
              value_name = "N")]
        limit: u32,
    },
    /// Count what was set aside, by its kind, group, code and reason
    #[command(after_help = summary::EXAMPLES)]
    Summary {
        #[command(flatten)]
        filter: LetterFilterArgs,
    },
    /// Show one message, with secrets masked
    #[command(after_help = SHOW_EXAMPLES)]
    Show { id: IdPrefix },
    /// Publish messages again, to where they were meant to go
    Replay(replay::ReplayArgs),
    /// Take messages out of the queue, for good
    #[command(after_help = DROP_EXAMPLES)]
    Drop {
        #[command(flatten)]
        which: SelectionArgs,
        /// Needed without an ID: dropped messages cannot be restored
        #[arg(long, required_unless_present = "ids")]
        yes: bool,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

pub(crate) async fn run(args: DeadArgs) -> anyhow::Result<()> {
    let (config, format) = (super::broker(&args.broker)?, args.format);
    match args.command {
        DeadCommand::List { filter, limit } => list(config, &filter, limit, format).await,
        DeadCommand::Summary { filter } => summary::run(config, &filter, format).await,
        DeadCommand::Show { id } => {
            let shown = with(config, async |dead| {
                let found = select::take(dead, &[id]).await?;
                let (position, last) = found.last().context("nothing was found")?;
                let shown = DeadLetterView::new(&last.letter, *position, found.len());
                for (_, held) in found {
                    dead.keep(held).await?;
                }
                anyhow::Ok(shown)
            })
            .await?;
            show::print(&shown, format)
        }
        DeadCommand::Replay(args) => replay::run(args, config, format).await,
        DeadCommand::Drop { which, yes: _, database } => {
            let operator = super::operator(&database).await?;
            discard(config, &which, format, &operator).await
        }
    }
}

async fn list(
    config: BrokerConfig,
    filter: &LetterFilterArgs,
    limit: u32,
    format: Format,
) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    let wanted = filter.read();
    let (queue, waiting, seen, beyond) = with(config, async |dead| {
        while entries.len() < limit as usize
            && let Some(held) = dead.next().await?
        {
            if wanted.matches(&held.letter) {
                entries.push(DeadLetterRow::new(&held.letter, dead.read));
            }
            dead.keep(held).await?;
        }
        anyhow::Ok((dead.names.dead.clone(), dead.waiting as usize, dead.read, dead.unread()))
    })
    .await?;
    let all = format!("{} in {queue}", messages(waiting.max(entries.len())));
    let mut shown = match entries.len() {
        0 if seen == 0 => format!("{queue} is empty"),
        shown if shown >= waiting => all,
        shown if filter.is_empty() => format!("the first {shown} of {all}"),
        shown => format!("{shown} that match, of {all}"),
    };
    if seen == MAX_READ && beyond > 0 {
        shown += &not_looked_at(beyond);
    } else if entries.len() == limit as usize && entries.len() < waiting {
        shown += "; --limit shows more";
    }
    if format.json {
        format.lines(DeadLetterRow::HEADER, DeadLetterRow::REASON, &entries, DeadLetterRow::cells)?;
        // Programs read this from standard error.
        if entries.len() < waiting {
            output::note(&shown);
        }
        return Ok(());
    }
    if !entries.is_empty() {
        format.lines(DeadLetterRow::HEADER, DeadLetterRow::REASON, &entries, DeadLetterRow::cells)?;
        output::print("")?;
    }
    output::print(&shown)
}

async fn discard(
    config: BrokerConfig,
    which: &SelectionArgs,
    format: Format,
    operator: &Operator,
) -> anyhow::Result<()> {
    let mut record = LetterRecord::begin(operator, "dropped", None).await?;
    let done = with(config, async |dead| {
        let mut source = which.open(dead).await?;
        while let Some(held) = source.next(dead).await? {
            dead.drop(&held).await?;
            record.add(held.letter.id);
        }
        anyhow::Ok((dead.names.dead.clone(), dead.waiting as usize, dead.unread()))
    })
    .await;
    // Also what was dropped before an error.
    let dropped = record.end().await?;
    let (queue, waiting, beyond) = done?;
    let left = waiting.saturating_sub(dropped.len());
    let mut sentence = format!("{} dropped, {left} left in {queue}", messages(dropped.len()));
    if beyond > 0 {
        sentence += &not_looked_at(beyond);
    }
    format.done(&json!({ "dropped": dropped.len(), "left": left, "messages": dropped }), &sentence)
}
