//! What happened to invites that left the plain path, for `session-invite trace`. An invite whose first try is accepted has no
//! steps: its story is in the columns of its row. By the step `closed` of an invite that the sweep has ended, a worker sees that
//! its reply is still to be sent (`resume.rs`).
//!
//! A step is written by the statement that records what it says. [`note`] writes those that change nothing
//! else. At most about [`KEPT`] are kept of a session: a provider or a sender may repeat itself for ever.

use serde::{Deserialize, Serialize};
use sqlx::{PgExecutor, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

/// Steps of a session. The statements have the number too.
pub(crate) const KEPT: usize = 200;
/// Characters of a cause that a step keeps.
const LONGEST_CAUSE: usize = 200;

/// What happened. A variant is the column `kind`, and its fields are `detail`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "detail", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub(crate) enum Step {
    /// The provider surely did not take the text.
    TryWaits {
        attempt: i32,
        /// How many tries there are at most; `None` in a row of an older worker.
        #[serde(default)]
        of: Option<u32>,
        why: WaitCause,
        /// The HTTP status of its answer.
        status: Option<u16>,
        provider_code: Option<i64>,
        /// Seconds until the next try; `None` if there is none.
        next_in: Option<f64>,
    },
    /// The provider refused the text for good.
    TryRefused { attempt: i32, code: String, provider_code: Option<i64> },
    /// The provider may have taken the text.
    TryUnknown { attempt: i32, why: String },
    /// The claim was over before the text could be written.
    TryWithheld { attempt: i32 },
    /// A look at the provider's list.
    Looked { found: LookFinding, sid: Option<String> },
    /// Its group is paused.
    Held {},
    /// A worker claimed the row after another one's claim had ended without a result.
    TakenOver { attempt: i32 },
    /// The message came again and found the row. A repeat is another message for the same invite.
    Redelivered { status: String, text_state: Option<String>, repeat: bool },
    /// It goes on from its row.
    Resumed { after: ResumeCause },
    /// An operator replayed its dead letter.
    Replayed { letter: String },
    /// What the provider reports about the text. The statement adds the last two fields.
    Receipt {
        status: String,
        code: Option<i32>,
        sid: String,
        by: ReportSource,
        /// Whether the row has changed.
        #[serde(default)]
        changed: bool,
        /// Whether the text is the row's.
        #[serde(default)]
        ours: bool,
    },
    /// It ended without a further try.
    Closed { code: String, by: ClosedBy, opted_out: bool },
}

/// Why a try is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WaitCause {
    Unreachable,
    Throttled,
    Account,
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LookFinding {
    Text,
    Nothing,
    /// Texts to the number that no row owns, after the database had lost rows.
    OtherTexts,
    /// The list could not be read.
    Unreadable,
}

/// Why an invite goes on from its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResumeCause {
    Pause,
    LostMessage,
}

/// Where a report about a text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReportSource {
    Receipt,
    /// `session-invite reconcile`.
    List,
    /// The answer to a try, after another worker had claimed the row.
    LateAnswer,
}

/// Who ended an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClosedBy {
    Worker,
    /// Its session's time was over.
    Sweep,
}

impl Step {
    /// A step that says how a try went whose outcome is not known.
    pub(crate) fn try_unknown(attempt: i32, why: &str) -> Self {
        Self::TryUnknown { attempt, why: why.chars().take(LONGEST_CAUSE).collect() }
    }

    /// The columns `kind` and `detail`, as JSON.
    pub(super) fn columns(&self) -> (String, String) {
        // An enum of strings and numbers always serializes, with both fields.
        let value = serde_json::to_value(self).unwrap_or_default();
        (value["kind"].as_str().unwrap_or_default().to_owned(), value["detail"].to_string())
    }
}

/// Keeps a step of a session that exists.
pub(crate) async fn note(pool: &PgPool, session: Uuid, step: &Step) -> Result<(), sqlx::Error> {
    let (kind, detail) = step.columns();
    sqlx::query!(
        "insert into steps (session_id, kind, detail)
         select s.id, $2, $3::text::jsonb from sessions s
          where s.id = $1 and (select count(*) from (select from steps k where k.session_id = s.id limit 200) kept) < 200",
        session,
        kind,
        detail,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// A step that was kept. A later release may know more kinds.
#[derive(Debug)]
pub(crate) struct KeptStep {
    pub(crate) at: OffsetDateTime,
    pub(crate) kind: String,
    pub(crate) detail: serde_json::Value,
}

impl KeptStep {
    /// `None` for a kind that this release does not know.
    pub(crate) fn read(&self) -> Option<Step> {
        serde_json::from_value(serde_json::json!({"kind": self.kind, "detail": self.detail})).ok()
    }
}

/// A session's steps, in their order.
pub(crate) async fn of_session(
    executor: impl PgExecutor<'_>,
    session: Uuid,
) -> Result<Vec<KeptStep>, sqlx::Error> {
    sqlx::query_as!(
        KeptStep,
        "select at, kind, detail from steps where session_id = $1 order by at, id",
        session
    )
    .fetch_all(executor)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_as_it_was_written() {
        for step in [
            Step::TryWaits {
                attempt: 1,
                of: Some(5),
                why: WaitCause::Throttled,
                status: Some(429),
                provider_code: None,
                next_in: Some(1.2),
            },
            Step::Held {},
            Step::Looked { found: LookFinding::OtherTexts, sid: None },
        ] {
            let (kind, detail) = step.columns();
            let detail: serde_json::Value = serde_json::from_str(&detail).unwrap();
            assert!(detail.is_object(), "{detail}");
            let kept = KeptStep { at: OffsetDateTime::UNIX_EPOCH, kind, detail };
            assert_eq!(kept.read(), Some(step));
        }
        let unknown = KeptStep {
            at: OffsetDateTime::UNIX_EPOCH,
            kind: "later".to_owned(),
            detail: serde_json::json!({}),
        };
        assert_eq!(unknown.read(), None);
    }

    #[test]
    fn a_long_cause_is_cut() {
        let Step::TryUnknown { why, .. } = Step::try_unknown(1, &"x".repeat(1000)) else { unreachable!() };
        assert_eq!(why.len(), LONGEST_CAUSE);
    }
}
