//! `session-invite sessions list | show | lookup`: what became of the invites.

use super::groups::group_id;
use crate::masked::debug_shows;
use crate::{
    config::DatabaseArgs,
    group_id::GroupId,
    invite::reply::to_the_second,
    output::{Format, plain},
    sessions::{
        Status, TextState,
        lookup::{self, Filter, Row},
    },
};
use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use strum::VariantNames;
use time::OffsetDateTime;
use uuid::Uuid;

const EXAMPLES: &str = "\
Examples:
  session-invite sessions list --group 72 --status unknown
  session-invite sessions show 01936d5e-9f0a-7c3e-8a55-0c8f6f6d1c7b
  session-invite sessions lookup --group 72 --key 123456";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    format: Format,
}

#[derive(clap::Subcommand)]
enum Command {
    /// The newest sessions first
    List {
        /// Only this group's
        #[arg(long, value_parser = group_id)]
        group: Option<GroupId>,
        /// Only those in this status
        #[arg(long, value_parser = statuses())]
        status: Option<Status>,
        /// Only those of this message id
        #[arg(long, value_name = "ID")]
        message_id: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000), value_name = "N")]
        limit: u16,
    },
    /// All that is known of one session
    Show { id: Uuid },
    /// The live session that holds a key
    Lookup {
        #[arg(long, value_parser = group_id)]
        group: GroupId,
        #[arg(long)]
        key: String,
    },
}

debug_shows!(Command {});

pub async fn run(args: Args) -> anyhow::Result<()> {
    let pool = super::database(&args.database).await?;
    match args.command {
        Command::List { group, status, message_id, limit } => {
            let filter = Filter { group, status, message_id, limit: limit.into() };
            let rows = lookup::list(&pool, &filter).await?;
            let header = ["CREATED", "ID", "GROUP", "KEY", "STATUS", "PHONE", "REQUESTED BY", "ERROR"];
            args.format.list(header, &rows, cells)
        }
        Command::Show { id } => {
            let row = lookup::show(&pool, id)
                .await?
                .with_context(|| format!("there is no session {id}; `sessions list` shows the newest"))?;
            args.format.object(&row, lines)
        }
        Command::Lookup { group, key } => {
            let row = lookup::by_key(&pool, group, &key)
                .await?
                .with_context(|| format!("group {group} has no live session with the key {key:?}"))?;
            args.format.object(&row, lines)
        }
    }
}

fn statuses() -> impl TypedValueParser<Value = Status> {
    PossibleValuesParser::new(Status::VARIANTS).try_map(|word| word.parse().map_err(|_| "no such status"))
}

fn cells(row: &Row) -> [String; 8] {
    [
        to_the_second(row.created_at),
        row.id.to_string(),
        row.group_id.to_string(),
        shown(row.session_key.as_ref()),
        row.status.as_str().to_owned(),
        shown(row.phone.as_ref()),
        plain(&row.requested_by),
        shown(row.error_code.as_ref()),
    ]
}

fn lines(row: &Row) -> Vec<(&'static str, String)> {
    let time = |at: Option<OffsetDateTime>| at.map_or_else(|| "-".to_owned(), to_the_second);
    vec![
        ("id", row.id.to_string()),
        ("group", row.group_id.to_string()),
        ("session key", shown(row.session_key.as_ref())),
        ("status", row.status.as_str().to_owned()),
        ("error", shown(row.error_code.as_ref())),
        ("what happened", shown(row.error.as_ref().and_then(|error| error["message"].as_str()))),
        ("phone", shown(row.phone.as_ref())),
        ("text", shown(row.invitation_text.as_ref())),
        ("state of the text", shown(row.text_state.map(TextState::as_str))),
        ("session type", shown(row.session_type.map(|kind| kind.to_string()))),
        ("session params", row.session_params.to_string()),
        ("requested by", plain(&row.requested_by)),
        ("message id", shown(row.message_id.as_ref())),
        ("correlation id", shown(row.correlation_id.as_ref())),
        ("attempts", row.attempts.to_string()),
        ("looks that missed", row.looks.to_string()),
        ("rests until", time(row.lease_until)),
        ("provider's id", shown(row.provider_message_id.as_ref())),
        ("created", to_the_second(row.created_at)),
        ("sent", time(row.sent_at)),
        ("delivered", time(row.delivered_at)),
        ("undelivered", time(row.undelivered_at)),
        ("joined", time(row.joined_at)),
        ("ended", time(row.ended_at)),
        ("expires", time(row.expires_at)),
        ("updated", to_the_second(row.updated_at)),
    ]
}

fn shown(text: Option<impl AsRef<str>>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| plain(text.as_ref()))
}
