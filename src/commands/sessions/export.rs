//! `sessions export`: all that is stored about a phone number.

use super::person::{self, Person, QueueFindings, UnsearchedQueue};
use crate::{
    config::{BrokerArgs, SecretsArgs},
    dead_letters::mask,
    group::options,
    invite::reply::to_the_second,
    masked::debug_shows,
    optouts::{self, OptOutRow},
    output::Format,
    queue::dead::Letter,
    sessions::erasure,
};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;

pub(super) const EXAMPLES: &str = "\
Examples:
  How much is stored about a number:
    session-invite sessions export --phone '111-000-0000'

  All of it, for the person who asks for it:
    session-invite sessions export --phone +442079460958 --json > export.json

It reads the tables, and the messages in .dead, .replies and .unreadable. It changes nothing.
Credentials of senders are masked.";

#[derive(clap::Args)]
pub(super) struct ExportArgs {
    /// The number, in any format
    #[arg(long)]
    phone: String,
    /// The region that a number without a country code is read in
    #[arg(long, value_name = "US", default_value = "US", value_parser = options::region)]
    region: String,
    /// Do not search the queues, for when the broker is away
    #[arg(long)]
    database_only: bool,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    secrets: SecretsArgs,
}

debug_shows!(ExportArgs { region, database_only });

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PersonalExport {
    /// The number in E.164, and its other form.
    numbers: Vec<String>,
    sessions: Vec<Value>,
    unpublished_events: Vec<Value>,
    steps: Vec<Value>,
    opt_outs: Vec<OptOutRow>,
    messages: Vec<Value>,
    queues: Vec<QueueFindings>,
    not_searched: Vec<UnsearchedQueue>,
}

debug_shows!(PersonalExport {});

pub(super) async fn run(args: ExportArgs, pool: &PgPool, format: Format) -> anyhow::Result<()> {
    let secrets = args.secrets.key()?;
    let config = if args.database_only { None } else { Some(crate::commands::broker(&args.broker)?) };
    let mut person = Person::read(pool, &args.phone, &args.region).await?;
    let numbers = person.search.forms();
    let sessions = erasure::sessions_of(pool, &numbers, Duration::ZERO).await?;
    person.know_sessions(sessions.iter().map(|session| session.id));
    let mut rows = erasure::rows_of(pool, &numbers).await?;
    for session in &mut rows.sessions {
        // A sender may have put its credential among the parameters.
        if let Some(params) = session.get_mut("session_params") {
            *params = mask::value_without_credentials(params.take());
        }
    }
    let opt_outs = optouts::of_number(pool, &secrets, &person.number, None).await?;
    let (mut messages, mut queues, mut not_searched) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(config) = config {
        for queue in person::search(&config, &person).await? {
            messages.extend(queue.found.iter().map(|found| message(queue.name(), &found.letter)));
            queues.push(queue.findings());
            queue.keep_all().await?;
        }
        not_searched = person::unsearched(&config).await?;
    }
    let export = PersonalExport {
        numbers,
        sessions: rows.sessions,
        unpublished_events: rows.events,
        steps: rows.steps,
        opt_outs,
        messages,
        queues,
        not_searched,
    };
    format.object(&export, lines)
}

/// A message with its content, without its sender's credential.
fn message(queue: &str, letter: &Letter) -> Value {
    let masked = |text: String| mask::value_without_credentials(text.into());
    let property =
        |text: &Option<lapin::types::ShortString>| text.as_ref().map(|text| masked(text.to_string()));
    let headers: serde_json::Map<_, _> =
        letter.headers().map(|(name, value)| mask::header(name, value)).collect();
    json!({
        "queue": queue,
        "id": letter.id,
        "kind": letter.kind(),
        "setAside": letter.last_at().map(to_the_second),
        "messageId": letter.message_id().map(|id| masked(id.to_string())),
        "correlationId": property(letter.properties.correlation_id()),
        "replyTo": property(letter.properties.reply_to()),
        "headers": headers,
        "body": mask::without_credentials(&letter.body),
    })
}

fn lines(export: &PersonalExport) -> Vec<(String, String)> {
    let mut lines = vec![("number".to_owned(), export.numbers.join(", "))];
    for session in &export.sessions {
        let text = |name: &str| session[name].as_str().unwrap_or("-").to_owned();
        lines
            .push((format!("session {}", text("id")), format!("{}, {}", text("created_at"), text("status"))));
    }
    for found in &export.opt_outs {
        let what = format!("{}, from {}", to_the_second(found.created_at), found.sender);
        lines.push((format!("opt-out ({})", found.source), what));
    }
    let counts = [
        ("sessions", export.sessions.len()),
        ("events that are not published", export.unpublished_events.len()),
        ("steps", export.steps.len()),
        ("opt-outs", export.opt_outs.len()),
    ];
    lines.extend(counts.map(|(what, count)| (what.to_owned(), count.to_string())));
    lines.extend(super::person::lines(&export.queues, &export.not_searched));
    lines.push(("all of it".to_owned(), "the same command with --json".to_owned()));
    lines
}
