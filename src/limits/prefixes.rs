//! Pumping: a fraudster who earns by texts to his own numbers requests many texts to one range of numbers. This warns when
//! it looks like that. It refuses no invite: a call centre, too, texts mostly its own town.
//!
//! A prefix is a number without its last four digits. Each worker has its own counts, which halve in ten minutes.

use super::metrics;
use crate::{group_id::GroupId, phone};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

const HALVES_IN: Duration = Duration::from_mins(10);
/// A prefix becomes unusual with so many texts and this share of its group's texts.
const UNUSUAL_TEXTS: f64 = 30.0;
const UNUSUAL_SHARE: f64 = 0.25;
/// It is usual again with a smaller share than this, or with fewer texts.
const USUAL_SHARE: f64 = 0.125;
const USUAL_TEXTS: f64 = 10.0;
/// The most groups in memory, and the most prefixes of one group.
const GROUPS_AT_MOST: usize = 1_000;
const PREFIXES_AT_MOST: usize = 1_000;

/// Recent texts of each group, by prefix.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    groups: HashMap<GroupId, GroupPrefixes>,
}

#[derive(Debug)]
struct GroupPrefixes {
    all: DecayingCount,
    prefixes: HashMap<String, DecayingCount>,
    unusual: Vec<String>,
}

/// A count that halves every ten minutes.
#[derive(Debug, Clone, Copy)]
struct DecayingCount {
    /// The count at `at`.
    value: f64,
    at: Instant,
}

impl DecayingCount {
    fn new(at: Instant) -> Self {
        Self { value: 0.0, at }
    }

    fn now(self, now: Instant) -> f64 {
        let halvings = now.saturating_duration_since(self.at).as_secs_f64() / HALVES_IN.as_secs_f64();
        self.value * (-halvings).exp2()
    }

    fn add(&mut self, now: Instant) {
        *self = Self { value: self.now(now) + 1.0, at: now };
    }
}

impl Prefixes {
    pub(super) fn count_text(&mut self, group: GroupId, phone: &str, now: Instant) {
        if self.groups.len() >= GROUPS_AT_MOST && !self.groups.contains_key(&group) {
            self.groups.retain(|_, counts| counts.all.now(now) >= 1.0 || !counts.unusual.is_empty());
            if self.groups.len() >= GROUPS_AT_MOST {
                return;
            }
        }
        let counts = self.groups.entry(group).or_insert_with(|| GroupPrefixes::new(now));
        let prefix = phone.get(..phone.len().saturating_sub(4)).unwrap_or_default();
        counts.all.add(now);
        let (all, count) = (counts.all.now(now), counts.count(prefix, now));
        if count >= UNUSUAL_TEXTS
            && count >= all * UNUSUAL_SHARE
            && !counts.unusual.iter().any(|p| p == prefix)
        {
            counts.unusual.push(prefix.to_owned());
            metrics::unusual_ranges(group, counts.unusual.len());
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
            let percent = (100.0 * count / all) as u32;
            tracing::warn!(
                group = group.get(),
                prefix = phone::masked_prefix(phone),
                percent,
                "one range of numbers has an unusual share of the group's texts, which may be pumping (docs/LIMITS.md)"
            );
        }
    }

    /// Finds prefixes that are usual again.
    pub(super) fn check(&mut self, now: Instant) {
        for (group, counts) in &mut self.groups {
            if counts.unusual.is_empty() {
                continue;
            }
            let all = counts.all.now(now);
            let prefixes = &counts.prefixes;
            let is_unusual = |prefix: &String| {
                let count = prefixes.get(prefix).map_or(0.0, |count| count.now(now));
                count >= USUAL_TEXTS && count >= all * USUAL_SHARE
            };
            let before = counts.unusual.len();
            counts.unusual.retain(is_unusual);
            if counts.unusual.len() < before {
                metrics::unusual_ranges(*group, counts.unusual.len());
                tracing::info!(
                    group = group.get(),
                    "a range of numbers has its usual share of the group's texts again"
                );
            }
        }
    }
}

impl GroupPrefixes {
    fn new(now: Instant) -> Self {
        Self { all: DecayingCount::new(now), prefixes: HashMap::new(), unusual: Vec::new() }
    }

    /// Counts one more text, and returns the prefix's count. Of too many prefixes, the half with fewer texts is dropped.
    fn count(&mut self, prefix: &str, now: Instant) -> f64 {
        if let Some(count) = self.prefixes.get_mut(prefix) {
            count.add(now);
            return count.now(now);
        }
        if self.prefixes.len() >= PREFIXES_AT_MOST {
            let mut counts: Vec<_> = self.prefixes.values().map(|count| count.now(now)).collect();
            let (_, median, _) = counts.select_nth_unstable_by(PREFIXES_AT_MOST / 2, f64::total_cmp);
            let median = *median;
            self.prefixes.retain(|_, count| count.now(now) > median);
        }
        self.prefixes.insert(prefix.to_owned(), DecayingCount { value: 1.0, at: now });
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId::new(72).expect("a group's id");

    fn unusual(prefixes: &Prefixes) -> usize {
        prefixes.groups[&GROUP].unusual.len()
    }

    #[test]
    fn a_prefix_with_a_quarter_of_many_texts_is_unusual_until_that_is_over() {
        let (mut prefixes, now) = (Prefixes::default(), Instant::now());
        for n in 0..100 {
            prefixes.count_text(GROUP, &format!("+1201{n:03}0000"), now);
        }
        assert_eq!(unusual(&prefixes), 0, "no prefix has many");
        for n in 0..40 {
            prefixes.count_text(GROUP, &format!("+1415555{n:04}"), now);
        }
        assert_eq!(unusual(&prefixes), 1);
        prefixes.check(now + HALVES_IN);
        assert_eq!(unusual(&prefixes), 1, "it still has its share");
        prefixes.check(now + 3 * HALVES_IN);
        assert_eq!(unusual(&prefixes), 0, "there are hardly any texts");
    }

    #[test]
    fn memory_is_bounded_for_any_numbers() {
        let (mut prefixes, now) = (Prefixes::default(), Instant::now());
        for n in 0..20_000_u32 {
            prefixes.count_text(GROUP, &format!("+1{:06}0000", 200_000 + n), now);
            prefixes.count_text(GroupId::new(i64::from(n) + 100).unwrap(), "+12015550000", now);
            if n.is_multiple_of(2) {
                prefixes.count_text(GROUP, "+14155550000", now);
            }
        }
        assert!(prefixes.groups.len() <= GROUPS_AT_MOST);
        assert!(prefixes.groups[&GROUP].prefixes.len() <= PREFIXES_AT_MOST);
        assert_eq!(prefixes.groups[&GROUP].unusual, ["+1415555"]);
    }
}
