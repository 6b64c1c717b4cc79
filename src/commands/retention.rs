//! `session-invite retention --dry-run`: what the workers' retention has to do.

use crate::{
    config::{DatabaseArgs, Faults, RetentionArgs},
    output::Format,
    sessions::retention::{self, RetentionCounts},
};
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  session-invite retention --dry-run
  session-invite retention --dry-run --retention 90d --json

Workers blank and delete old rows by themselves, when they start and each hour. This counts the rows
that they would take now, by the same conditions, and changes nothing.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RetentionCommandArgs {
    /// Count, and change nothing; the command does nothing else
    #[arg(long, required = true)]
    dry_run: bool,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    format: Format,
}

pub(crate) async fn run(args: &RetentionCommandArgs) -> anyhow::Result<()> {
    let mut faults = Faults::default();
    let age = args.retention.check(&mut faults);
    let age = faults.finish(age)?;
    let pool = super::database(&args.database).await?;
    let counts = retention::count(&pool, age).await?;
    let RetentionCounts { deleted, blanked, inbound_texts } = &counts;
    let kept = humantime::format_duration(age);
    let object = json!({"dryRun": args.dry_run, "retention": kept.to_string(), "rows": counts});
    let rows = [
        ("sessions to delete", deleted),
        ("sessions to blank", blanked),
        ("STOPs and STARTs to delete", inbound_texts),
    ];
    args.format.object(&object, |_| {
        let rows = rows.map(|(what, count)| (what, count.to_string()));
        [("RETENTION", kept.to_string())].into_iter().chain(rows).collect()
    })
}
