//! `session-invite doctor`: checks everything that the worker needs, and says how to mend it.

use crate::{
    config::WorkerArgs,
    doctor::{Finding, Verdict, examine},
    output::Format,
};
use anyhow::ensure;

pub const EXAMPLES: &str = "\
Examples:
  With the worker's own environment, or its .env:
    session-invite doctor

  For a script: exit code 0 if nothing has failed
    session-invite doctor --json | jq '.[] | select(.verdict != \"ok\")'

It changes nothing: no migration, no queue, no message, no text.
Exit code 1 if something has failed, a wrong setting included; 0 for warnings.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    worker: WorkerArgs,
}

pub async fn run(args: &Args) -> anyhow::Result<()> {
    let findings = examine(&args.worker).await;
    args.format.list(["CHECK", "RESULT", "FOUND", "WHAT TO DO"], &findings, cells)?;
    let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Failed).count();
    ensure!(failed == 0, "{failed} of {} checks have failed", findings.len());
    Ok(())
}

fn cells(finding: &Finding) -> [String; 4] {
    [
        finding.check.to_owned(),
        finding.verdict.to_string(),
        finding.found.clone(),
        finding.mend.clone().unwrap_or_default(),
    ]
}
