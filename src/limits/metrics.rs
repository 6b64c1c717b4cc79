//! The metrics of the limits.

use crate::{
    group_id::GroupId,
    metrics::{
        Metric, ShownBy,
        groups::{self, OTHER},
    },
};
use metrics::gauge;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

const UNUSUAL_RANGES: &str = "session_invite_unusual_number_ranges";

pub(crate) const METRICS: &[Metric] = &[Metric::gauge(
    UNUSUAL_RANGES,
    "Ranges of phone numbers that receive an unusual share of a group's texts now.",
)
.by(&["group"], &[OTHER])
.shown_by(ShownBy::Worker)];

/// The counts of the groups that share a series.
static OTHERS: Mutex<Option<HashMap<GroupId, u32>>> = Mutex::new(None);

pub(super) fn unusual_ranges(group: GroupId, count: usize) {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    if let Some(label) = groups::label(group.get()) {
        gauge!(UNUSUAL_RANGES, "group" => label.to_string()).set(count);
        return;
    }
    let mut others = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
    let others = others.get_or_insert_default();
    others.insert(group, count);
    others.retain(|_, count| *count > 0);
    let sum = others.values().fold(0, |sum: u32, count| sum.saturating_add(*count));
    gauge!(UNUSUAL_RANGES, "group" => OTHER).set(sum);
}
