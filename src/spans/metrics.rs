//! The metrics of traces.

use crate::metrics::{Metric, ShownBy};
use metrics::counter;

const EXPORTED: &str = "session_invite_spans_exported_total";
const DROPPED: &str = "session_invite_spans_dropped_total";

pub(crate) const METRICS: &[Metric] = &[
    Metric::counter(EXPORTED, "Spans that the collector has taken.").shown_by(ShownBy::Worker),
    Metric::counter(
        DROPPED,
        "Spans that were dropped: the queue to the collector was full, or the collector did not take them.",
    )
    .by(&["reason"], &["queue_full", "collector"])
    .shown_by(ShownBy::Worker),
];

/// Why spans are dropped.
#[derive(Debug, Clone, Copy)]
pub(super) enum DropReason {
    QueueFull,
    /// It did not take them.
    Collector,
}

pub(super) fn exported(spans: usize) {
    counter!(EXPORTED).increment(u64::try_from(spans).unwrap_or(u64::MAX));
}

pub(super) fn dropped(reason: DropReason, spans: usize) {
    let reason = match reason {
        DropReason::QueueFull => "queue_full",
        DropReason::Collector => "collector",
    };
    counter!(DROPPED, "reason" => reason).increment(u64::try_from(spans).unwrap_or(u64::MAX));
}
