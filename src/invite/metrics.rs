//! The metrics of an invite on its way to its outcome.

use crate::{
    group_id::GroupId,
    metrics::{
        Metric, ShownBy,
        groups::{self, OTHER},
    },
    sessions::{ClaimResult, SessionRow},
    sms::TryResult,
};
use metrics::{Counter, Histogram, counter, gauge, histogram};
use std::{collections::HashMap, sync::LazyLock, time::Instant};

const STAGE_SECONDS: &str = "session_invite_invite_stage_duration_seconds";
const SMS_ATTEMPTS: &str = "session_invite_sms_attempts_total";
const SMS_ATTEMPT_SECONDS: &str = "session_invite_sms_attempt_duration_seconds";
const SMS_RETRIES: &str = "session_invite_sms_retries_total";
const LOOKUPS: &str = "session_invite_provider_lookups_total";
const UNCERTAIN_RESOLVED: &str = "session_invite_uncertain_sms_resolved_total";
const CLAIMS_LOST: &str = "session_invite_claims_lost_total";
const ROWS_LOST: &str = "session_invite_rows_lost_total";
const PROVIDER_OPTOUTS: &str = "session_invite_provider_optouts_total";
const CREDENTIALS_REFUSED: &str = "session_invite_credentials_refused_in_a_row";

pub(crate) const METRICS: &[Metric] = &[
    on_worker(
        Metric::step_seconds(STAGE_SECONDS, "Time that an invite spends in one stage of its way.")
            .by(&["stage"], STAGES),
    ),
    on_worker(
        Metric::counter(SMS_ATTEMPTS, "Attempts to hand a text to the provider, by the result.")
            .by(&["result"], &["accepted", "refused", "unavailable", "unknown", "not_sent"]),
    ),
    on_worker(Metric::step_seconds(
        SMS_ATTEMPT_SECONDS,
        "Time that the provider takes to answer one attempt.",
    )),
    on_worker(
        Metric::counter(
            SMS_RETRIES,
            "Attempts after the first one, by the reason why the attempt before was not enough.",
        )
        .by(&["reason"], &["unavailable", "not_found", "unknown"]),
    ),
    on_worker(
        Metric::counter(
            LOOKUPS,
            "Searches of the provider's message list for a text whose answer was lost, by the result.",
        )
        .by(&["result"], &["found", "perhaps_found", "not_found", "failed"]),
    ),
    on_worker(
        Metric::counter(UNCERTAIN_RESOLVED, "Texts whose answer was lost, by how the question was resolved.")
            .by(&["resolution"], &["found", "not_found", "sent_again", "given_up"]),
    ),
    on_worker(Metric::counter(
        CLAIMS_LOST,
        "Attempts whose outcome came after their claim on the session had ended.",
    )),
    on_worker(Metric::counter(
        ROWS_LOST,
        "Open invites whose row the database has lost; each is answered as unknown.",
    )),
    on_worker(Metric::counter(
        PROVIDER_OPTOUTS,
        "Opt-outs that became known because the provider refused a text.",
    )),
    Metric::gauge(
        CREDENTIALS_REFUSED,
        "Credentials of the group that were refused in a row, where these are five or more; 0 after a good one.",
    )
    .by(&["group"], &[OTHER]),
];

/// Shows these runs of refused credentials, and 0 for all other groups. Groups without a series of their own share one, which
/// has the longest run.
pub(super) fn credentials_refused(runs: impl Iterator<Item = (GroupId, u64)>) {
    let named = groups::all_named().into_iter().map(|group| group.to_string());
    let mut longest: HashMap<String, u32> = named.chain([OTHER.to_owned()]).map(|label| (label, 0)).collect();
    for (group, count) in runs {
        let label = groups::label(group.get()).map_or_else(|| OTHER.to_owned(), |label| label.to_string());
        let longest = longest.entry(label).or_default();
        *longest = u32::try_from(count).unwrap_or(u32::MAX).max(*longest);
    }
    for (label, count) in longest {
        gauge!(CREDENTIALS_REFUSED, "group" => label).set(count);
    }
}

const fn on_worker(metric: Metric) -> Metric {
    metric.shown_by(ShownBy::Worker)
}

/// In the order of [`Stage`].
const STAGES: &[&str; 5] = &["turn", "place", "insert", "record", "reply"];

/// Handles of the metrics that every invite records, looked up once.
struct InviteMetrics {
    /// In the order of [`Stage`].
    stages: [Histogram; 5],
    accepted: Counter,
    attempt_seconds: Histogram,
}

static INVITE_METRICS: LazyLock<InviteMetrics> = LazyLock::new(|| InviteMetrics {
    stages: STAGES.map(|stage| histogram!(STAGE_SECONDS, "stage" => stage)),
    accepted: counter!(SMS_ATTEMPTS, "result" => "accepted"),
    attempt_seconds: histogram!(SMS_ATTEMPT_SECONDS),
});

/// A stage of an invite, whose duration is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// Waiting for the From number's slot (`SMS_PER_SECOND`).
    Turn,
    /// Waiting until one more request may be sent to the provider.
    Place,
    Insert,
    Record,
    /// Publishing the reply, until the broker has confirmed it.
    Reply,
}

/// Records a stage that began at `since` and ends now.
pub(crate) fn took(stage: Stage, since: Instant) {
    INVITE_METRICS.stages[stage as usize].record(since.elapsed());
}

/// Records one attempt, begun at `since`.
pub(super) fn attempted(answer: &TryResult, since: Instant) {
    INVITE_METRICS.attempt_seconds.record(since.elapsed());
    match answer {
        TryResult::Accepted { .. } => INVITE_METRICS.accepted.increment(1),
        other => counter!(SMS_ATTEMPTS, "result" => result_of(other)).increment(1),
    }
}

/// The word for an attempt's result.
pub(super) fn result_of(answer: &TryResult) -> &'static str {
    match answer {
        TryResult::Accepted { .. } => "accepted",
        TryResult::Refused(_) => "refused",
        TryResult::Later { .. } => "unavailable",
        TryResult::PerhapsSent { .. } => "unknown",
        TryResult::Withheld => "not_sent",
    }
}

/// Counts a further attempt, before it is made. The first one after a pause is none.
pub(super) fn tried_again(row: &SessionRow) {
    if row.is_waiting() && row.attempts == 0 {
        return;
    }
    let (reason, resolution) = match row {
        _ if row.is_waiting() => ("unavailable", None),
        _ if row.is_absent() => ("not_found", Some("not_found")),
        _ => ("unknown", Some("sent_again")),
    };
    counter!(SMS_RETRIES, "reason" => reason).increment(1);
    if let Some(resolution) = resolution {
        resolved(resolution);
    }
}

/// The result of a search of the provider's list.
#[derive(Debug, Clone, Copy)]
pub(super) enum LookupResult {
    Found,
    /// A text that no row owns, after the database has lost rows.
    PerhapsFound,
    NotFound,
    /// The list could not be read.
    Failed,
}

pub(super) fn looked_up(result: LookupResult) {
    let label = match result {
        LookupResult::Found => "found",
        LookupResult::PerhapsFound => "perhaps_found",
        LookupResult::NotFound => "not_found",
        LookupResult::Failed => "failed",
    };
    counter!(LOOKUPS, "result" => label).increment(1);
    if matches!(result, LookupResult::Found) {
        resolved("found");
    }
}

/// Counts an invite that ends without a further attempt.
pub(super) fn closed(row: &SessionRow, result: &ClaimResult) {
    if !row.is_waiting() {
        resolved(if matches!(result, ClaimResult::Unknown(_)) { "given_up" } else { "not_found" });
    }
}

fn resolved(resolution: &'static str) {
    counter!(UNCERTAIN_RESOLVED, "resolution" => resolution).increment(1);
}

/// Counts an attempt whose outcome came after its claim had ended.
pub(super) fn claim_lost() {
    counter!(CLAIMS_LOST).increment(1);
}

/// Counts an invite whose row the database has lost.
pub(super) fn row_lost() {
    counter!(ROWS_LOST).increment(1);
}

/// Counts an opt-out that became known because the provider refused a text.
pub(super) fn provider_optout() {
    counter!(PROVIDER_OPTOUTS).increment(1);
}
