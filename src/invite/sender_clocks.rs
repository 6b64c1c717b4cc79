//! Groups whose messages have timestamps that cannot be right, for operators: a clock is wrong, so their age is not known.

use super::Envelope;
use crate::{group::Group, group_id::GroupId};
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// Clocks that differ by less are not reported.
const FAR: Duration = Duration::from_mins(1);
/// So many wrong timestamps in a row are reported.
const LISTED_AT: u64 = 3;
/// A group is no longer reported so long after its last one.
const LISTED_FOR: Duration = Duration::from_mins(10);
/// Groups that are remembered, and that are reported, at most.
const REMEMBERED: usize = 1_000;
const LISTED: usize = 10;

/// How far a timestamp is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClockError {
    /// It lies in the future.
    Ahead(Duration),
    /// It is older than the message can be, as its queue was empty after that: by so much at least.
    Behind(Duration),
}

/// The groups whose last timestamps were wrong.
#[derive(Debug, Default)]
pub(crate) struct SenderClocks {
    /// So that a right timestamp costs no lock while all are right.
    any: AtomicBool,
    groups: Mutex<HashMap<GroupId, WrongClock>>,
}

/// Wrong timestamps in a row.
#[derive(Debug)]
struct WrongClock {
    name: Option<String>,
    error: ClockError,
    count: u64,
    last: Instant,
}

impl SenderClocks {
    /// Notes the timestamp of a message of an authenticated sender.
    pub(super) fn note(&self, group: &Group, envelope: &Envelope) {
        if envelope.timestamp.is_none() || envelope.may_be_known() {
            return;
        }
        match error_of(envelope, SystemTime::now()) {
            Some(error) => self.wrong(group, error),
            None if self.any.load(Ordering::Acquire) => self.right(group.id),
            None => {}
        }
    }

    fn wrong(&self, group: &Group, error: ClockError) {
        let mut groups = self.lock();
        if groups.len() >= REMEMBERED && !groups.contains_key(&group.id) {
            groups.retain(|_, clock| clock.last.elapsed() < LISTED_FOR);
            if groups.len() >= REMEMBERED {
                return;
            }
        }
        let count = groups.get(&group.id).map_or(0, |clock| clock.count) + 1;
        let (name, last) = (group.options.name.clone(), Instant::now());
        groups.insert(group.id, WrongClock { name, error, count, last });
        self.any.store(true, Ordering::Release);
    }

    fn right(&self, group: GroupId) {
        let mut groups = self.lock();
        groups.remove(&group);
        self.any.store(!groups.is_empty(), Ordering::Release);
    }

    /// For `/readyz`: the groups with the most wrong timestamps.
    pub(crate) fn problems(&self) -> Vec<String> {
        let groups = self.lock();
        let is_listed = |clock: &WrongClock| clock.count >= LISTED_AT && clock.last.elapsed() < LISTED_FOR;
        let mut listed: Vec<_> = groups.iter().filter(|(_, clock)| is_listed(clock)).collect();
        listed.sort_by_key(|(group, clock)| (std::cmp::Reverse(clock.count), group.get()));
        listed.into_iter().take(LISTED).map(|(group, clock)| clock.text(*group)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GroupId, WrongClock>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far the timestamp is off, if that is sure.
fn error_of(envelope: &Envelope, now: SystemTime) -> Option<ClockError> {
    let ahead = envelope.ahead(now)?;
    if ahead > FAR {
        return Some(ClockError::Ahead(ahead));
    }
    let oldest = envelope.published_after?.elapsed();
    let behind = envelope.age(now)?.saturating_sub(oldest);
    (behind > FAR).then_some(ClockError::Behind(behind))
}

impl WrongClock {
    fn text(&self, group: GroupId) -> String {
        let Self { name, error, count, .. } = self;
        let name = name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let by = |off: Duration| humantime::format_duration(Duration::from_secs(off.as_secs()));
        let (what, meanwhile) = match *error {
            ClockError::Ahead(off) => (
                format!("lie in the future: {count} in a row, the last by {}", by(off)),
                "They count as now: their age is not known, INVITE_MAX_AGE does not hold for them, and publish-to-sent leaves \
                 them out.",
            ),
            ClockError::Behind(off) => (
                format!(
                    "are older than the messages can be, as the queue was empty since: {count} in a row, the last by {} at least",
                    by(off)
                ),
                "Invites that seem older than INVITE_MAX_AGE are answered invite_expired.",
            ),
        };
        format!(
            "the timestamps of group {group}{name} {what}. {meanwhile} What to do: compare the clocks of this machine and of the \
             sender: date -u; timestamps are in UTC"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_timestamp_is_wrong_only_if_that_is_sure() {
        let now = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let empty_before = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        let error = |timestamp, published_after| {
            let envelope = Envelope { timestamp: Some(timestamp), published_after, ..Envelope::default() };
            error_of(&envelope, now)
        };
        assert!(matches!(error(2_000_003_600, None), Some(ClockError::Ahead(off)) if off.as_secs() == 3_600));
        assert!(
            matches!(error(1_999_996_400, empty_before(5)), Some(ClockError::Behind(off)) if off.as_secs() == 3_594)
        );
        // It may have waited in the queue, or in another one.
        for (timestamp, published_after) in [
            (2_000_000_030, None),
            (2_000_000_000, empty_before(5)),
            (1_999_996_400, None),
            (1_999_996_400, empty_before(3_600)),
        ] {
            assert_eq!(error(timestamp, published_after), None, "{timestamp}");
        }
    }
}
