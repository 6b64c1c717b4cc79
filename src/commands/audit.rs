//! `session-invite audit list`: what operators changed.

use super::groups::group_id;
use crate::{
    audit::{self, AuditFilter, AuditRow, NameSource},
    config::DatabaseArgs,
    group_id::GroupId,
    invite::reply::to_the_second,
    moment::Moment,
    output::Format,
};
use serde::Serialize;
use time::OffsetDateTime;

const EXAMPLES: &str = "\
Examples:
  session-invite audit list --since 1d
  session-invite audit list --group 72 --action groups
  session-invite audit list --since 2026-11-30T12:00:00Z --json

Each command that changes something is there, as it was typed, without secrets. A phone number is
shown as the keyed hash of the opt-outs, if at all. Nobody can change or delete a row.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum AuditCommand {
    /// List the changes, the newest first
    #[command(after_help = EXAMPLES)]
    List {
        /// Only since then: how long ago (2h, 1d), or RFC 3339
        #[arg(long, value_name = "TIME")]
        since: Option<Moment>,
        /// Only changes of this group
        #[arg(long, value_parser = group_id)]
        group: Option<GroupId>,
        /// Only this command, such as `groups`, or `groups disable`
        #[arg(long, value_name = "COMMAND")]
        action: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
        limit: u32,
    },
}

pub(crate) async fn run(args: AuditArgs) -> anyhow::Result<()> {
    let AuditCommand::List { since, group, action, limit } = args.command;
    let pool = super::database(&args.database).await?;
    let since = since.map(|since| since.at(OffsetDateTime::now_utc()));
    let filter = AuditFilter { since, group, action, before: None, from: None, limit: limit.into() };
    let rows = audit::list(&pool, &filter).await?;
    let rows: Vec<_> = rows.iter().map(|row| AuditView { name_from: row.name_from(), row }).collect();
    args.format.list(["AT", "WHO", "HOST", "COMMAND", "CHANGE"], &rows, |AuditView { row, .. }| {
        [to_the_second(row.at), row.who(), row.host.clone(), row.command.clone(), row.changes().join("\n")]
    })
}

/// A row for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuditView<'r> {
    #[serde(flatten)]
    row: &'r AuditRow,
    name_from: Option<NameSource>,
}
