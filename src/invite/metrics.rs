//! What is counted on an invite's way to its outcome.

use crate::{
    metrics::Metric,
    sessions::{ClaimResult, SessionRow},
    sms::Answer,
};
use metrics::{Counter, Histogram, counter, histogram};
use std::{sync::LazyLock, time::Instant};

const STAGE_SECONDS: &str = "session_invite_invite_stage_duration_seconds";
const SMS_ATTEMPTS: &str = "session_invite_sms_attempts_total";
const SMS_ATTEMPT_SECONDS: &str = "session_invite_sms_attempt_duration_seconds";
const SMS_RETRIES: &str = "session_invite_sms_retries_total";
const LOOKUPS: &str = "session_invite_provider_lookups_total";
const UNCERTAIN_RESOLVED: &str = "session_invite_uncertain_sms_resolved_total";
const CLAIMS_LOST: &str = "session_invite_claims_lost_total";
const PROVIDER_OPTOUTS: &str = "session_invite_provider_optouts_total";

pub const METRICS: &[Metric] = &[
    Metric::seconds(STAGE_SECONDS, &["stage"], "Time that an invite spends in one stage of its way."),
    Metric::counter(SMS_ATTEMPTS, &["result"], "Attempts to hand a text to the provider, by the result."),
    Metric::seconds(SMS_ATTEMPT_SECONDS, &[], "Time that the provider takes to answer one attempt."),
    Metric::counter(
        SMS_RETRIES,
        &["reason"],
        "Attempts after the first one, by the reason why the attempt before was not enough.",
    ),
    Metric::counter(
        LOOKUPS,
        &["result"],
        "Searches of the provider's message list for a text whose answer was lost, by the result.",
    ),
    Metric::counter(
        UNCERTAIN_RESOLVED,
        &["resolution"],
        "Texts whose answer was lost, by how the question was resolved.",
    ),
    Metric::counter(
        CLAIMS_LOST,
        &[],
        "Attempts whose outcome came after their claim on the session had ended.",
    ),
    Metric::counter(PROVIDER_OPTOUTS, &[], "Opt-outs that became known because the provider refused a text."),
];

/// What every invite counts is looked up once.
struct Usual {
    /// In the order of [`Stage`].
    stages: [Histogram; 5],
    accepted: Counter,
    attempt_seconds: Histogram,
}

static USUAL: LazyLock<Usual> = LazyLock::new(|| Usual {
    stages: ["turn", "place", "insert", "record", "reply"]
        .map(|stage| histogram!(STAGE_SECONDS, "stage" => stage)),
    accepted: counter!(SMS_ATTEMPTS, "result" => "accepted"),
    attempt_seconds: histogram!(SMS_ATTEMPT_SECONDS),
});

/// A stage of an invite's way.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// Until it is the sender's turn (`SMS_PER_SECOND`).
    Turn,
    /// Until a place at the provider is free.
    Place,
    Insert,
    Record,
    /// Until the broker has confirmed the reply.
    Reply,
}

/// The time in a stage that began at `since`.
pub(crate) fn took(stage: Stage, since: Instant) {
    USUAL.stages[stage as usize].record(since.elapsed());
}

/// One attempt at the provider, begun at `since`.
pub(super) fn attempted(answer: &Answer, since: Instant) {
    USUAL.attempt_seconds.record(since.elapsed());
    let result = match answer {
        Answer::Accepted { .. } => return USUAL.accepted.increment(1),
        Answer::Refused(_) => "refused",
        Answer::Later { .. } => "unavailable",
        Answer::PerhapsSent { .. } => "unknown",
        Answer::Withheld => "not_sent",
    };
    counter!(SMS_ATTEMPTS, "result" => result).increment(1);
}

/// A further attempt begins.
pub(super) fn tried_again(row: &SessionRow) {
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
    NotFound,
    /// The list could not be read.
    Failed,
}

pub(super) fn looked_up(result: LookupResult) {
    let label = match result {
        LookupResult::Found => "found",
        LookupResult::NotFound => "not_found",
        LookupResult::Failed => "failed",
    };
    counter!(LOOKUPS, "result" => label).increment(1);
    if matches!(result, LookupResult::Found) {
        resolved("found");
    }
}

/// An invite ends without a further attempt.
pub(super) fn closed(row: &SessionRow, result: &ClaimResult) {
    if !row.is_waiting() {
        resolved(if matches!(result, ClaimResult::Unknown(_)) { "given_up" } else { "not_found" });
    }
}

fn resolved(resolution: &'static str) {
    counter!(UNCERTAIN_RESOLVED, "resolution" => resolution).increment(1);
}

/// An attempt's outcome came after its claim had ended.
pub(super) fn claim_lost() {
    counter!(CLAIMS_LOST).increment(1);
}

/// The provider refused a text to a number that was not known to have opted out.
pub(super) fn provider_optout() {
    counter!(PROVIDER_OPTOUTS).increment(1);
}
