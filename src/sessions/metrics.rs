//! What the table of sessions counts.

use crate::metrics::Metric;
use metrics::counter;

const DUPLICATE_SMS: &str = "session_invite_duplicate_sms_total";
const SMS_AFTER_FAILURE_REPLY: &str = "session_invite_sms_sent_after_failure_reply_total";
const RETIRED: &str = "session_invite_sessions_retired_total";

pub const METRICS: &[Metric] = &[
    Metric::counter(
        DUPLICATE_SMS,
        &[],
        "Visitors who received two texts for one invite, as far as this is known.",
    ),
    Metric::counter(
        SMS_AFTER_FAILURE_REPLY,
        &[],
        "Texts that the provider sent although the reply had said that no text was sent.",
    ),
    Metric::counter(
        RETIRED,
        &["action"],
        "Old sessions that were deleted, or blanked of everything that names a person.",
    ),
];

pub(crate) fn duplicate_sms() {
    counter!(DUPLICATE_SMS).increment(1);
}

pub(super) fn sms_after_failure_reply() {
    counter!(SMS_AFTER_FAILURE_REPLY).increment(1);
}

/// What was done with old sessions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Retirement {
    Blanked,
    Deleted,
}

pub(super) fn retired(action: Retirement, rows: u64) {
    let action = match action {
        Retirement::Blanked => "blanked",
        Retirement::Deleted => "deleted",
    };
    counter!(RETIRED, "action" => action).increment(rows);
}
