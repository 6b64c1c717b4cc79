//! `dead replay`: publishes dead letters where they were meant to go.

use super::{report::ReplayReport, select::SelectionArgs, words::messages};
use crate::{
    config::{BrokerConfig, DatabaseArgs},
    dead_letters::{LetterRecord, ReplayAction, ReplayMode, Replayer, with},
    output::{Format, note_in_place},
    queue::{QueueNames, dead::DeadLetters},
    shutdown,
};
use anyhow::bail;
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

const EXAMPLES: &str = "\
Examples:
  session-invite dead replay 3f9a0c2d71be
  session-invite dead replay --all --dry-run
  session-invite dead replay --all --kind request --rate 5
  session-invite dead replay --group 72 --code internal_error --since 2h

A request is published again with the current time and its own message id: fix what stopped it
first, and replay it while its credential is good. A request that had been authenticated (it has a
row in `sessions`) continues from its row, without its credential. A reply goes to the queue that it
was meant for, if REPLY_TO_ALLOW allows it. A message that does not match stays where it is. One that cannot be published stays, and the exit
code is 1. If the command is killed, one message may be replayed twice. A request without a message
id then counts as two invites.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    which: SelectionArgs,
    /// Messages in a second at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    rate: u32,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Where replies may go, as the workers have it [default: *]
    #[arg(long, env = "REPLY_TO_ALLOW", hide_env_values = true, value_name = "PATTERN")]
    reply_to_allow: Option<String>,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) async fn run(args: ReplayArgs, config: BrokerConfig, format: Format) -> anyhow::Result<()> {
    let allow = super::super::reply_to_allow(args.reply_to_allow.as_ref())?;
    let operator = super::super::operator(&args.database).await?;
    let record =
        if args.dry_run { None } else { Some(LetterRecord::begin(&operator, "replayed", None).await?) };
    let mut pace = tokio::time::interval(Duration::from_secs(1) / args.rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mode = if args.dry_run { ReplayMode::DryRun } else { ReplayMode::Publish };
    let queue = QueueNames::new(&config.queue_prefix).dead;
    let mut run = ReplayRun {
        replayer: Replayer::new(operator.pool().clone(), allow, mode),
        pace,
        stop: shutdown::on_signal()?,
        progress: Progress::new(),
        report: ReplayReport::new(args.dry_run),
    };
    let ended = with(config, async |dead| run.run(dead, &args.which).await).await;
    run.progress.clear();
    let report = run.report;
    if let Some(mut record) = record {
        let replayed = report.messages.iter().filter(|row| row.action == ReplayAction::Replay);
        replayed.for_each(|row| record.add(row.id.clone()));
        record.end().await?;
    }
    // Also what was done before an error.
    if ended.is_ok() || !report.messages.is_empty() {
        format.done(&report, &report.sentence(&queue))?;
    }
    ended?;
    if report.stayed > 0 && !args.dry_run {
        bail!("{} could not be replayed", messages(report.stayed));
    }
    Ok(())
}

struct ReplayRun {
    replayer: Replayer,
    pace: Interval,
    stop: CancellationToken,
    progress: Progress,
    report: ReplayReport,
}

impl ReplayRun {
    async fn run(&mut self, dead: &mut DeadLetters, which: &SelectionArgs) -> anyhow::Result<()> {
        let mut source = which.open(dead).await?;
        let most = source.most(dead);
        while let Some(held) = source.next(dead).await? {
            // A dry run publishes nothing, so it needs no pace.
            let wait = async {
                if !self.report.dry_run {
                    _ = self.pace.tick().await;
                }
            };
            if self.stop.run_until_cancelled(wait).await.is_none() {
                dead.keep(held).await?;
                source.keep_the_rest(dead).await?;
                bail!("stopped by a signal; messages that are not listed as replayed are still there");
            }
            self.report.add(self.replayer.replay(dead, held).await?);
            self.progress.show(self.report.messages.len(), most);
        }
        self.report.beyond = dead.unread();
        Ok(())
    }
}

/// One line on standard error, if that is a terminal.
struct Progress {
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self { shown: None, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, done: usize, most: usize) {
        if self.terminal && self.shown.is_none_or(|at| at.elapsed() > Duration::from_millis(200)) {
            self.shown = Some(Instant::now());
            note_in_place(&format!("\r{done} of {most} "));
        }
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            note_in_place("\r\u{1b}[K");
        }
    }
}
