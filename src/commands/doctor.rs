//! `session-invite doctor`: checks everything that the worker needs, and says how to fix it.

use crate::{
    config::{MisspeltSetting, WorkerArgs},
    doctor::{CheckStatus, Finding, examine},
    output::Format,
};
use anyhow::ensure;

pub(crate) const EXAMPLES: &str = "\
Examples:
  With the worker's own environment, or its .env:
    session-invite doctor

  For a script: exit code 0 if nothing has failed
    session-invite doctor --json | jq '.[] | select(.verdict != \"ok\")'

It changes nothing: no migration, no queue, no text. One exception: on RabbitMQ 4 it publishes a
message of its own to .dead and .unreadable, where these are empty, and takes it out again.
Exit code 1 if something has failed, a wrong setting included; 0 for warnings.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    worker: WorkerArgs,
}

/// `misspelt` are the variables whose names are almost those of settings.
pub(crate) async fn run(args: &DoctorArgs, misspelt: &[MisspeltSetting]) -> anyhow::Result<()> {
    let findings = Box::pin(examine(&args.worker, misspelt)).await;
    args.format.list(["CHECK", "RESULT", "FOUND", "WHAT TO DO"], &findings, cells)?;
    let failed = findings.iter().filter(|finding| finding.status == CheckStatus::Failed).count();
    ensure!(failed == 0, "{failed} of {} checks have failed", findings.len());
    Ok(())
}

fn cells(finding: &Finding) -> [String; 4] {
    [
        finding.check.to_owned(),
        finding.status.to_string(),
        finding.found.clone(),
        finding.remedy.clone().unwrap_or_default(),
    ]
}
