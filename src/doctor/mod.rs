//! What the worker needs, looked at without changing anything: no migration, no declaration, no message, no text.

mod broker;
mod database;
mod outside;

use crate::config::WorkerArgs;
use serde::Serialize;
use std::{fmt, time::Duration};

/// How long one server may take to say what it is asked.
const PATIENCE: Duration = Duration::from_secs(8);

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// The worker runs, and somebody should look.
    Warning,
    /// The worker cannot do its work.
    Failed,
    /// It depends on what failed.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "WARNING",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        })
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), mend: None }
    }

    fn warning(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, found: found.into(), mend: Some(mend.into()) }
    }

    fn failed(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Failed, found: found.into(), mend: Some(mend.into()) }
    }

    fn skipped(check: &'static str, because: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Skipped, found: because.into(), mend: None }
    }
}

/// All checks, in the order in which they are told. Servers are asked at the same time, and each has a few seconds.
pub async fn examine(args: &WorkerArgs) -> Vec<Finding> {
    let mut findings = configuration(args);
    let (database, broker, outside) =
        tokio::join!(database::examine(args), broker::examine(args), outside::examine(args));
    findings.extend(database.into_iter().chain(broker).chain(outside));
    findings
}

/// Every fault at once, as at the worker's start.
fn configuration(args: &WorkerArgs) -> Vec<Finding> {
    match args.check() {
        Ok(_) => vec![Finding::ok("configuration", "complete, as far as it can be told by itself")],
        Err(faults) => {
            let told =
                |fault: &String| Finding::failed("configuration", fault, "see session-invite worker --help");
            faults.lines().iter().map(told).collect()
        }
    }
}
