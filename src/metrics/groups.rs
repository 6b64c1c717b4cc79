//! Series by group. The number of series is bounded: 50 groups have their own, and all others share `other`.
//!
//! A group that has its own series keeps it until the process ends, so that no series jumps from one to the other. The
//! process names the busiest groups at its start; later ones take the places that are left, in the order in which they come.

use arc_swap::ArcSwap;
use metrics::{Counter, counter};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Groups with a series of their own.
pub(crate) const NAMED_AT_MOST: usize = 50;
/// The label of all other groups.
pub(crate) const OTHER: &str = "other";
/// The label where the group is not known: the sender has shown no good credential.
pub(crate) const NONE: &str = "none";

/// The groups that have a series of their own, with their labels.
static NAMED: Mutex<Vec<(i64, Arc<str>)>> = Mutex::new(Vec::new());

fn named() -> MutexGuard<'static, Vec<(i64, Arc<str>)>> {
    NAMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The group's label; it gets its own if a place is left.
pub(crate) fn label(group: i64) -> Option<Arc<str>> {
    let mut named = named();
    if let Some((_, label)) = named.iter().find(|(id, _)| *id == group) {
        return Some(label.clone());
    }
    if named.len() >= NAMED_AT_MOST {
        return None;
    }
    let label: Arc<str> = group.to_string().into();
    named.push((group, label.clone()));
    Some(label)
}

/// All groups that have a series of their own.
pub(crate) fn all_named() -> Vec<i64> {
    named().iter().map(|(id, _)| *id).collect()
}

/// A counter by group and by one more label.
pub(crate) struct GroupCounters {
    name: &'static str,
    label: &'static str,
    values: Vec<&'static str>,
    named: ArcSwap<HashMap<i64, Arc<[Counter]>>>,
    other: Arc<[Counter]>,
    none: Arc<[Counter]>,
}

impl GroupCounters {
    /// `values` are all values of `label`.
    pub(crate) fn new(name: &'static str, label: &'static str, values: Vec<&'static str>) -> Self {
        let of = |group: &'static str| {
            values.iter().map(|value| counter!(name, "group" => group, label => *value)).collect()
        };
        let (other, none) = (of(OTHER), of(NONE));
        Self { name, label, values, named: ArcSwap::default(), other, none }
    }

    /// Counts one. `value` is the index in `values`. A named group costs one look-up by number, and no lock.
    pub(crate) fn count(&self, group: Option<i64>, value: usize) {
        let counters = group.map_or_else(|| self.none.clone(), |group| self.of(group));
        if let Some(counter) = counters.get(value) {
            counter.increment(1);
        }
    }

    /// Shows the series of all named groups at zero.
    pub(crate) fn show_named(&self) {
        for group in all_named() {
            self.of(group);
        }
    }

    fn of(&self, group: i64) -> Arc<[Counter]> {
        let named = self.named.load();
        if let Some(counters) = named.get(&group) {
            return counters.clone();
        }
        if named.len() >= NAMED_AT_MOST {
            return self.other.clone();
        }
        let Some(label) = label(group) else { return self.other.clone() };
        let counter = |value: &&'static str| {
            let counter = counter!(self.name, "group" => label.to_string(), self.label => *value);
            counter.increment(0);
            counter
        };
        let counters: Arc<[Counter]> = self.values.iter().map(counter).collect();
        self.named.rcu(|named| {
            let mut named = HashMap::clone(named);
            named.insert(group, counters.clone());
            named
        });
        counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_keeps_its_own_series_and_no_more_than_fifty_have_one() {
        let counters = GroupCounters::new("test_total", "code", vec!["a", "b"]);
        for group in 1_001..=1_080 {
            counters.count(Some(group), 0);
        }
        counters.count(None, 1);
        counters.show_named();
        let named = all_named();
        assert_eq!((named.len(), counters.named.load().len()), (NAMED_AT_MOST, NAMED_AT_MOST));
        for group in (1_001..=1_080).rev() {
            assert_eq!(label(group).is_some(), named.contains(&group), "{group}");
        }
        assert_eq!(all_named(), named);
    }
}
