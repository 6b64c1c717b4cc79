//! What a check finds.

use serde::Serialize;
use std::{fmt, time::Duration};

/// How long one server may take to say what it is asked.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

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
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), mend: None }
    }

    pub(super) fn warning(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, found: found.into(), mend: Some(mend.into()) }
    }

    pub(super) fn failed(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Failed, found: found.into(), mend: Some(mend.into()) }
    }

    pub(super) fn skipped(check: &'static str, because: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Skipped, found: because.into(), mend: None }
    }
}
