//! Pumping: whoever earns by texts to numbers of his own asks for many to one range of numbers. This says so when it looks
//! like that, and refuses nobody: a call centre texts its own town as well.
//!
//! A prefix is a number without its last four digits. Counts are of this worker alone, and halve in ten minutes.

use super::metrics;
use crate::{group_id::GroupId, phone};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

const HALVES_IN: Duration = Duration::from_mins(10);
/// A prefix is unusual from so many texts and such a share of its group's on.
const UNUSUAL_TEXTS: f64 = 30.0;
const UNUSUAL_SHARE: f64 = 0.25;
/// Until it has a lower share than this, or hardly any texts.
const USUAL_SHARE: f64 = 0.125;
const USUAL_TEXTS: f64 = 10.0;
/// Groups, and prefixes of one, that are remembered at most.
const GROUPS_AT_MOST: usize = 1_000;
const PREFIXES_AT_MOST: usize = 1_000;

/// What each group's prefixes had lately.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    groups: HashMap<GroupId, OfGroup>,
}

#[derive(Debug)]
struct OfGroup {
    all: Count,
    prefixes: HashMap<String, Count>,
    unusual: Vec<String>,
}

/// A count that was right at some time, and halves since.
#[derive(Debug, Clone, Copy)]
struct Count {
    then: f64,
    at: Instant,
}

impl Count {
    fn new(at: Instant) -> Self {
        Self { then: 0.0, at }
    }

    fn now(self, now: Instant) -> f64 {
        let halvings = now.saturating_duration_since(self.at).as_secs_f64() / HALVES_IN.as_secs_f64();
        self.then * (-halvings).exp2()
    }

    fn add(&mut self, now: Instant) {
        *self = Self { then: self.now(now) + 1.0, at: now };
    }
}

impl Prefixes {
    pub(super) fn texting(&mut self, group: GroupId, phone: &str, now: Instant) {
        if self.groups.len() >= GROUPS_AT_MOST && !self.groups.contains_key(&group) {
            self.groups.retain(|_, of| of.all.now(now) >= 1.0 || !of.unusual.is_empty());
            if self.groups.len() >= GROUPS_AT_MOST {
                return;
            }
        }
        let of = self.groups.entry(group).or_insert_with(|| OfGroup::new(now));
        let prefix = phone.get(..phone.len().saturating_sub(4)).unwrap_or_default();
        of.all.add(now);
        let (all, count) = (of.all.now(now), of.count(prefix, now));
        if count >= UNUSUAL_TEXTS && count >= all * UNUSUAL_SHARE && !of.unusual.iter().any(|p| p == prefix) {
            of.unusual.push(prefix.to_owned());
            metrics::unusual_ranges(group, of.unusual.len());
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
            let percent = (100.0 * count / all) as u32;
            tracing::warn!(
                %group, prefix = phone::masked_prefix(phone), percent,
                "one range of numbers has an unusual share of the group's texts: is somebody pumping? (docs/LIMITS.md)"
            );
        }
    }

    /// Sees what is over.
    pub(super) fn look(&mut self, now: Instant) {
        for (group, of) in &mut self.groups {
            if of.unusual.is_empty() {
                continue;
            }
            let all = of.all.now(now);
            let prefixes = &of.prefixes;
            let goes_on = |prefix: &String| {
                let count = prefixes.get(prefix).map_or(0.0, |count| count.now(now));
                count >= USUAL_TEXTS && count >= all * USUAL_SHARE
            };
            let before = of.unusual.len();
            of.unusual.retain(goes_on);
            if of.unusual.len() < before {
                metrics::unusual_ranges(*group, of.unusual.len());
                tracing::info!(%group, "a range of numbers has its usual share of the group's texts again");
            }
        }
    }
}

impl OfGroup {
    fn new(now: Instant) -> Self {
        Self { all: Count::new(now), prefixes: HashMap::new(), unusual: Vec::new() }
    }

    /// With one more. The least of too many are forgotten: those that matter are not among them.
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
        self.prefixes.insert(prefix.to_owned(), Count { then: 1.0, at: now });
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
            prefixes.texting(GROUP, &format!("+1201{n:03}0000"), now);
        }
        assert_eq!(unusual(&prefixes), 0, "no prefix has many");
        for n in 0..40 {
            prefixes.texting(GROUP, &format!("+1415555{n:04}"), now);
        }
        assert_eq!(unusual(&prefixes), 1);
        prefixes.look(now + HALVES_IN);
        assert_eq!(unusual(&prefixes), 1, "it still has its share");
        prefixes.look(now + 3 * HALVES_IN);
        assert_eq!(unusual(&prefixes), 0, "there are hardly any texts");
    }

    #[test]
    fn memory_is_bounded_whatever_is_texted() {
        let (mut prefixes, now) = (Prefixes::default(), Instant::now());
        for n in 0..20_000_u32 {
            prefixes.texting(GROUP, &format!("+1{:06}0000", 200_000 + n), now);
            prefixes.texting(GroupId::new(i64::from(n) + 100).unwrap(), "+12015550000", now);
            if n.is_multiple_of(2) {
                prefixes.texting(GROUP, "+14155550000", now);
            }
        }
        assert!(prefixes.groups.len() <= GROUPS_AT_MOST);
        assert!(prefixes.groups[&GROUP].prefixes.len() <= PREFIXES_AT_MOST);
        assert_eq!(prefixes.groups[&GROUP].unusual, ["+1415555"]);
    }
}
