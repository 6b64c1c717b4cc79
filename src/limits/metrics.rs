//! What the limits count.

use crate::{group_id::GroupId, metrics::Metric};
use metrics::gauge;

const UNUSUAL_RANGES: &str = "session_invite_unusual_number_ranges";

pub const METRICS: &[Metric] = &[Metric::gauge(
    UNUSUAL_RANGES,
    &["group"],
    "Ranges of phone numbers that receive an unusual share of a group's texts now.",
)];

pub(super) fn unusual_ranges(group: GroupId, count: usize) {
    gauge!(UNUSUAL_RANGES, "group" => group.to_string()).set(u32::try_from(count).unwrap_or(u32::MAX));
}
