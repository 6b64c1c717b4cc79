//! The finding of a check.

use serde::Serialize;
use std::{fmt, time::Duration};

/// How long all checks of one server may take. Together they take less than 3 s, as they run side by side.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection to one node may take, where its settings allow more.
pub(super) const CONNECTS_WITHIN: Duration = Duration::from_secs(1);

/// A problem of `/readyz`, and its remedy where it names one.
pub(super) fn with_remedy(problem: &str) -> (&str, Option<String>) {
    match problem.split_once(". What to do: ") {
        Some((found, remedy)) => (found, Some(remedy.to_owned())),
        None => (problem, None),
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckStatus {
    Ok,
    /// The worker runs, but an operator should look at it.
    Warning,
    /// The worker cannot do its work.
    Failed,
    /// It needs something that failed.
    Skipped,
}

impl fmt::Display for CheckStatus {
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
pub(crate) struct Finding {
    pub check: &'static str,
    /// The JSON fields have their names from the contract.
    #[serde(rename = "verdict")]
    pub status: CheckStatus,
    pub found: String,
    /// What the operator should do; null in JSON if there is nothing to do.
    #[serde(rename = "mend")]
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, status: CheckStatus::Ok, found: found.into(), remedy: None }
    }

    pub(super) fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: CheckStatus::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn failed(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: CheckStatus::Failed, found: found.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn skipped(check: &'static str, reason: impl Into<String>) -> Self {
        Self { check, status: CheckStatus::Skipped, found: reason.into(), remedy: None }
    }
}
