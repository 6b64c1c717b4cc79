//! `dead replay`: publishes dead letters where they were meant to go.

use super::{
    entry::NOT_DECODED,
    mask,
    report::{Action, As, Line, Report},
    select::Which,
    words::messages,
    work::with,
};
use crate::{
    config::{BrokerConfig, DatabaseArgs, ReplyToAllow},
    db::Passing,
    output::Format,
    queue::{
        Names,
        dead::{DeadLetters, Held, Kind, Letter, Replay, Replayed, named},
    },
    sessions::lookup::{self, Ticket},
    shutdown,
};
use anyhow::{Context, anyhow, bail};
use sqlx::PgPool;
use std::{
    collections::HashSet,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

const EXAMPLES: &str = "\
Examples:
  session-invite dead replay 3f9a0c2d71be
  session-invite dead replay --all --dry-run
  session-invite dead replay --all --kind request --rate 5

A request is asked again as of now, with its own message id: mend what stopped it first, and
replay it while its credential is good. One that had been authenticated (its row in `sessions`
says so) goes on from there, without its credential. A reply goes to the queue that it was meant
for, if REPLY_TO_ALLOW allows it. What cannot be published stays, and the exit code is 1. A
command that is killed may replay one message twice, which a request without a message id takes
for two invites.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    which: Which,
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

/// What is done with one message.
enum Plan {
    Publish(Box<Replay>, As),
    /// A copy of one that was replayed.
    Drop,
    Stay(String),
}

pub async fn run(args: Args, config: BrokerConfig, format: Format) -> anyhow::Result<()> {
    let allow = super::super::reply_to_allow(args.reply_to_allow.as_ref())?;
    let pool = super::super::database(&args.database).await?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / args.rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let queue = Names::new(&config.queue_prefix).dead;
    let mut round = Round {
        pool,
        allow,
        pace,
        stop: shutdown::on_signal()?,
        copies: HashSet::new(),
        progress: Progress::new(),
        report: Report::new(args.dry_run),
    };
    let ended = with(config, async |dead| round.run(dead, &args.which).await).await;
    round.progress.clear();
    let report = round.report;
    // What was done before an error is told as well.
    if ended.is_ok() || !report.messages.is_empty() {
        format.done(&report, &report.sentence(&queue))?;
    }
    ended?;
    if report.stayed > 0 && !args.dry_run {
        bail!("{} could not be replayed", messages(report.stayed));
    }
    Ok(())
}

struct Round {
    pool: PgPool,
    allow: ReplyToAllow,
    pace: Interval,
    stop: CancellationToken,
    /// What was replayed, of which copies may follow.
    copies: HashSet<[u8; 32]>,
    progress: Progress,
    report: Report,
}

impl Round {
    async fn run(&mut self, dead: &mut DeadLetters, which: &Which) -> anyhow::Result<()> {
        let mut source = which.open(dead).await?;
        let most = source.most(dead);
        while let Some(held) = source.next(dead).await? {
            // A dry run disturbs nobody.
            let wait = async {
                if !self.report.dry_run {
                    _ = self.pace.tick().await;
                }
            };
            if self.stop.run_until_cancelled(wait).await.is_none() {
                dead.keep(held).await?;
                source.keep_the_rest(dead).await?;
                bail!("stopped by a signal; what is not told as replayed is still there");
            }
            self.one(dead, held).await?;
            self.progress.show(self.report.messages.len(), most);
        }
        self.report.beyond = dead.beyond();
        Ok(())
    }

    async fn one(&mut self, dead: &mut DeadLetters, held: Held) -> anyhow::Result<()> {
        let letter = &held.letter;
        let (id, kind, copy_of) = (letter.id.clone(), letter.kind(), letter.copy_of());
        let said = format!("the message {id}");
        let plan = self.plan(letter, &dead.names).await?;
        let mut line = Line { id, kind, action: Action::Stay, to: None, session_id: None, why: None };
        match plan {
            Plan::Stay(why) => {
                line.why = Some(why);
                dead.keep(held).await?;
            }
            Plan::Drop => {
                line.action = Action::Drop;
                if self.report.dry_run { dead.keep(held).await? } else { dead.drop(&held).await? }
            }
            Plan::Publish(replay, by) => {
                let done = if self.report.dry_run {
                    dead.keep(held).await?;
                    Replayed::Done
                } else {
                    dead.replay(held, &replay).await.with_context(|| said)?
                };
                line.why = match done {
                    Replayed::Done => None,
                    Replayed::Unroutable => Some(unroutable(&replay.queue, by)),
                    Replayed::Refused => Some(format!(
                        "the queue {} does not take it; is it full?",
                        mask::known(&replay.queue)
                    )),
                };
                line.to = Some(mask::known(&replay.queue));
                if done == Replayed::Done {
                    line.action = Action::Replay;
                    line.session_id = if let As::Session(id) = by { Some(id) } else { None };
                    self.report.replayed(by);
                    self.copies.extend(copy_of);
                }
            }
        }
        self.report.add(line);
        Ok(())
    }

    async fn plan(&self, letter: &Letter, names: &Names) -> anyhow::Result<Plan> {
        if letter.copy_of().is_some_and(|copy| self.copies.contains(&copy)) {
            return Ok(Plan::Drop);
        }
        Ok(match letter.kind() {
            None if !letter.is_decoded => Plan::Stay(NOT_DECODED.to_owned()),
            None => Plan::Stay("its x-kind does not say what it is; no worker put it there".to_owned()),
            Some(Kind::Reply) => match letter.as_reply(names, &self.allow) {
                Ok(replay) => Plan::Publish(Box::new(replay), As::Reply),
                Err(why) => Plan::Stay(mask::known(&why)),
            },
            Some(Kind::Request) => match self.row(letter).await? {
                Some(row) => {
                    let replay = letter.as_session(names, row.session, row.ticket);
                    Plan::Publish(Box::new(replay), As::Session(row.session))
                }
                None => Plan::Publish(Box::new(letter.as_request(names)), As::Request),
            },
        })
    }

    /// The row of exactly this request, if its sender was authenticated. Asked anew, its credential could have expired.
    async fn row(&self, letter: &Letter) -> anyhow::Result<Option<Ticket>> {
        if letter.is_of_a_session() {
            return Ok(None);
        }
        let request = letter.request();
        let (group, message_id) = named(&request);
        lookup::authenticated(&self.pool, group, message_id, &request.sha256()).await.map_err(|error| {
            anyhow!("the database cannot be asked ({}); what is not told as replayed stays", error.summary())
        })
    }
}

fn unroutable(queue: &str, by: As) -> String {
    let queue = mask::known(queue);
    match by {
        As::Reply => format!("the queue {queue} is not there"),
        As::Request | As::Session(_) => format!("the queue {queue} is not there; a worker declares it"),
    }
}

/// One line on standard error, for whoever sits at the terminal.
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
            eprint!("\r{done} of {most} ");
            let _ = std::io::stderr().flush();
        }
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            eprint!("\r\u{1b}[K");
        }
    }
}
