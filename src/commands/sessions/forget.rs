//! `sessions forget`: erases what is stored about a phone number.

use super::person::{self, Person, QueueFindings, UnsearchedQueue};
use crate::{
    audit::{Change, Operator},
    config::{BrokerArgs, BrokerConfig, SecretsArgs},
    failpoint,
    group::options,
    masked::debug_shows,
    optouts::{self, OptOuts},
    output::{self, Format},
    sessions::{
        ContentHasher, Status,
        erasure::{self, ErasedRows, PersonalSession},
    },
};
use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The pause before another look at sessions that are not over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sessions that an error names.
const NAMED_AT_MOST: usize = 10;

pub(super) const EXAMPLES: &str = "\
Examples:
  What would be erased:
    session-invite sessions forget --phone '111-000-0000'

  Erase it:
    session-invite sessions forget --phone '111-000-0000' --yes

  Also end the number's live sessions:
    session-invite sessions forget --phone +442079460958 --end --yes

Rows stay until RETENTION, without the number, the text, its link and the parameters: they stop a
second text. Opt-outs stay, as a keyed hash. When the command is stopped, run it again: it goes on.";

/// What the command cannot reach, and what to do about it.
const OUT_OF_REACH: [&str; 7] = [
    "The provider keeps its own records of the texts: delete those with the ids in providerMessageIds there",
    "Backups, standbys and write-ahead logs of the database keep the old rows until they are overwritten",
    "Replies and events that are delivered are with the systems that took them, and requests with their senders",
    "A message that another client holds without an acknowledgement meanwhile is not seen: run the command again",
    "A message whose body is compressed, encrypted, or in another encoding than UTF-8 and UTF-16 is not read",
    "Logs of proxies, the broker and other systems may hold the number. Ours mask it, but not in a queue's name or an id that a sender chose",
    "What senders wrote about the person into invites to other numbers is not searched",
];

#[derive(clap::Args)]
pub(super) struct ForgetArgs {
    /// The number, in any format
    #[arg(long)]
    phone: String,
    /// The region that a number without a country code is read in
    #[arg(long, value_name = "US", default_value = "US", value_parser = options::region)]
    region: String,
    /// Erase it; without this the command only counts
    #[arg(long)]
    yes: bool,
    /// End the number's live sessions first; without this they are an error
    #[arg(long)]
    end: bool,
    /// Do not search the queues, for when the broker is away: their messages stay
    #[arg(long)]
    database_only: bool,
    /// How long to wait for the outcomes of invites in flight
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    wait: Duration,
    /// How long a session must not have changed: a retry queue holds a message for 2 minutes, which then needs its outcome
    #[arg(long, default_value = "3m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    rest: Duration,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    secrets: SecretsArgs,
}

debug_shows!(ForgetArgs { region, yes, end, database_only, wait, rest });

/// What goes and what stays, by place.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ForgetReport {
    /// Whether it was erased, or only counted.
    forgotten: bool,
    last_digits: String,
    sessions: u64,
    unpublished_events: u64,
    steps: u64,
    queues: Vec<QueueFindings>,
    /// Why nothing can be erased yet.
    waits_for: Vec<UnsettledSession>,
    /// Sessions of the number that are there after the command: they began meanwhile.
    left: usize,
    stays: ForgetRemains,
    out_of_reach: [&'static str; 7],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ForgetRemains {
    /// Only a keyed hash and the last two digits of the number.
    opt_outs: usize,
    not_searched: Vec<UnsearchedQueue>,
    /// Sessions whose message id, which their sender chose, has the number in it.
    message_ids_with_the_number: Vec<Uuid>,
    /// The provider's ids of the texts.
    provider_message_ids: Vec<String>,
}

/// A session that cannot be forgotten yet.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UnsettledSession {
    session_id: Uuid,
    groupid: i64,
    status: Status,
    why: &'static str,
}

impl UnsettledSession {
    fn of(session: &PersonalSession) -> Option<Self> {
        let why = match session {
            _ if session.status == Status::Sending => {
                "a worker has to give it its outcome (in a paused group: after `groups resume`)"
            }
            _ if session.is_live() => "it is live: wait for its end, or use --end",
            _ if session.may_come_again => {
                "the broker may deliver its message again, within a day: keep a worker running"
            }
            _ if session.is_recent => "it changed within --rest",
            _ => return None,
        };
        Some(Self { session_id: session.id, groupid: session.group_id, status: session.status, why })
    }
}

pub(super) async fn run(args: ForgetArgs, operator: &Operator, format: Format) -> anyhow::Result<()> {
    let pool = operator.pool();
    let secrets = args.secrets.key()?;
    let config = if args.database_only { None } else { Some(crate::commands::broker(&args.broker)?) };
    let mut person = Person::read(pool, &args.phone, &args.region).await?;
    let numbers = person.search.forms();
    // A wrong SECRETS_KEY is noticed before a session is ended.
    let optouts = if args.yes { Some(OptOuts::open(pool.clone(), &secrets).await?) } else { None };
    if args.yes {
        if let Some(config) = &config {
            // A broker that is away is noticed before a session is ended.
            person::unsearched(config).await?;
        }
        settle(operator, &numbers, &args).await?;
    }
    let sessions = erasure::sessions_of(pool, &numbers, args.rest).await?;
    person.know_sessions(sessions.iter().map(|session| session.id));
    let opt_outs = optouts::of_number(pool, &secrets, &person.number, None).await?;
    let mut report = count(pool, &person, &sessions, opt_outs.len()).await?;
    if let Some(optouts) = optouts {
        let again = "the number is not forgotten yet; the same command goes on";
        forget(operator, &person, config.as_ref(), &optouts, &mut report).await.context(again)?;
        report.left = erasure::sessions_of(pool, &numbers, Duration::ZERO).await?.len();
        report.waits_for.clear();
    } else if let Some(config) = &config {
        for queue in person::search(config, &person).await? {
            report.queues.push(queue.findings());
            queue.keep_all().await?;
        }
    }
    if let Some(config) = &config {
        report.stays.not_searched = person::unsearched(config).await?;
    }
    print(&report, args.database_only, format)
}

async fn count(
    pool: &PgPool,
    person: &Person,
    sessions: &[PersonalSession],
    opt_outs: usize,
) -> anyhow::Result<ForgetReport> {
    let ids: Vec<Uuid> = sessions.iter().map(|session| session.id).collect();
    let counts = erasure::count(pool, &ids).await?;
    let has_number =
        |session: &&PersonalSession| session.message_id.as_deref().is_some_and(|id| person.search.is_in(id));
    let e164 = person.number.as_e164();
    Ok(ForgetReport {
        forgotten: false,
        last_digits: e164[e164.len().saturating_sub(2)..].to_owned(),
        sessions: u64::try_from(sessions.len())?,
        unpublished_events: u64::try_from(counts.events)?,
        steps: u64::try_from(counts.steps)?,
        queues: Vec::new(),
        waits_for: sessions.iter().filter_map(UnsettledSession::of).collect(),
        left: 0,
        stays: ForgetRemains {
            opt_outs,
            not_searched: Vec::new(),
            message_ids_with_the_number: sessions
                .iter()
                .filter(has_number)
                .map(|session| session.id)
                .collect(),
            provider_message_ids: sessions.iter().filter_map(|s| s.provider_message_id.clone()).collect(),
        },
        out_of_reach: OUT_OF_REACH,
    })
}

/// Waits until all sessions of the number are over, so that no message still needs what is erased.
async fn settle(operator: &Operator, numbers: &[String], args: &ForgetArgs) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut is_shown = false;
    loop {
        let sessions = erasure::sessions_of(operator.pool(), numbers, args.rest).await?;
        let live: Vec<Uuid> =
            sessions.iter().filter(|session| session.is_live()).map(|session| session.id).collect();
        let unsettled: Vec<_> = sessions.iter().filter_map(UnsettledSession::of).collect();
        if unsettled.is_empty() {
            return Ok(());
        }
        if !live.is_empty() && !args.end {
            bail!("the number has live sessions; nothing was erased: {}", named(&unsettled));
        }
        if !live.is_empty() {
            let what = "the number's live sessions could not be ended, and nothing was erased";
            end(operator, &live).await.context(what)?;
            continue;
        }
        if begun.elapsed() >= args.wait {
            let waited = humantime::format_duration(args.wait);
            bail!("sessions are not over after {waited}; nothing was erased: {}", named(&unsettled));
        }
        if !is_shown && std::io::stderr().is_terminal() {
            output::note(&format!("waiting for {} sessions: {}", unsettled.len(), named(&unsettled)));
            is_shown = true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn named(sessions: &[UnsettledSession]) -> String {
    let one = |session: &UnsettledSession| {
        let UnsettledSession { session_id, groupid, status, why } = session;
        format!("{session_id} of group {groupid} is {}, and {why}", status.as_str())
    };
    let more = sessions.len().saturating_sub(NAMED_AT_MOST);
    let more = (more > 0).then(|| format!("{more} more"));
    sessions.iter().take(NAMED_AT_MOST).map(one).chain(more).collect::<Vec<_>>().join("; ")
}

async fn end(operator: &Operator, live: &[Uuid]) -> Result<(), sqlx::Error> {
    operator
        .change(None, async |tx| {
            let ended = erasure::end(tx, live).await?;
            let before = Some(json!({"live": ended}));
            let after = (ended > 0).then(|| json!({"live": 0, "ended": ended}));
            Ok(Change { value: (), before: before.filter(|_| ended > 0), after })
        })
        .await
}

/// Erases: first in the queues, as long as the rows show which messages are the person's; then all rows at once.
async fn forget(
    operator: &Operator,
    person: &Person,
    config: Option<&BrokerConfig>,
    optouts: &OptOuts,
    report: &mut ForgetReport,
) -> anyhow::Result<()> {
    let phone_hash = optouts.shown_hash(person.number.as_e164());
    let mut messages = 0;
    if let Some(config) = config {
        let queues = person::search(config, person).await?;
        messages = queues.iter().map(|queue| queue.found.len()).sum();
        if messages > 0 {
            let begun = json!({"state": "begun", "phone_hash": phone_hash, "messages": messages});
            operator.record(None, None, Some(begun)).await?;
        }
        for queue in queues {
            report.queues.push(queue.findings());
            queue.drop_found().await?;
        }
    }
    failpoint::hit("messages_dropped");
    let hasher = ContentHasher::new(optouts.key());
    let numbers = person.search.forms();
    let erase = async |tx: &mut PgConnection| {
        let erased = erasure::erase(tx, &numbers, &hasher).await?;
        let ErasedRows { sessions, events, steps } = erased;
        let has_changed = messages > 0 || sessions > 0;
        let before = json!({"phone_hash": phone_hash, "sessions": sessions, "events": events, "steps": steps,
                            "messages": messages});
        let after = json!({"state": "ended", "phone_hash": phone_hash, "sessions": 0, "events": 0, "steps": 0,
                           "messages": 0});
        Ok::<_, sqlx::Error>(Change {
            value: erased,
            before: has_changed.then_some(before),
            after: has_changed.then_some(after),
        })
    };
    let erased = operator.change(None, erase).await?;
    report.forgotten = true;
    (report.sessions, report.unpublished_events, report.steps) =
        (erased.sessions, erased.events, erased.steps);
    Ok(())
}

fn print(report: &ForgetReport, database_only: bool, format: Format) -> anyhow::Result<()> {
    format.object(report, |report| {
        let what = if report.forgotten { "forgotten" } else { "would be forgotten" };
        let counts = [
            ("sessions", report.sessions),
            ("events that are not published", report.unpublished_events),
            ("steps", report.steps),
        ];
        let mut lines = vec![(format!("Number …{}", report.last_digits), what.to_owned())];
        lines.extend(counts.map(|(what, count)| (what.to_owned(), count.to_string())));
        lines.extend(person::lines(&report.queues, &report.stays.not_searched));
        if database_only {
            lines.push(("messages in queues".to_owned(), "not searched (--database-only)".to_owned()));
        }
        let hash = "a keyed hash and the last two digits";
        lines.push(("stays: opt-outs".to_owned(), format!("{}, as {hash}", report.stays.opt_outs)));
        let ids = &report.stays.message_ids_with_the_number;
        if !ids.is_empty() {
            let until = format!("{} have the number in them, until RETENTION", ids.len());
            lines.push(("stays: message ids".to_owned(), until));
        }
        if report.left > 0 {
            let again = format!("{} began meanwhile: run the command again later", report.left);
            lines.push(("stays: sessions".to_owned(), again));
        }
        lines
    })?;
    if format.json {
        return Ok(());
    }
    output::print("\nOut of reach:")?;
    for what in report.out_of_reach {
        output::print(&format!("- {what}."))?;
    }
    let texts = &report.stays.provider_message_ids;
    if !texts.is_empty() {
        output::print(&format!("- The provider's ids of the texts: {}.", texts.join(", ")))?;
    }
    if report.forgotten {
        return Ok(());
    }
    if !report.waits_for.is_empty() {
        output::print(&format!("\nNot over yet: {}.", named(&report.waits_for)))?;
    }
    output::print("\nNothing was changed. To erase it, run the same command with --yes.")
}
