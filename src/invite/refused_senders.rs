//! From numbers that the provider refuses, for operators: every invite that has one fails at once.

use crate::{group::Group, group_id::GroupId};
use sms_provider::codes::{self, ErrorCode};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A From number is no longer reported so long after its last refusal.
const LISTED_FOR: Duration = Duration::from_mins(10);
/// From numbers that are remembered, and that are reported, at most.
const REMEMBERED: usize = 1_000;
const LISTED: usize = 10;
/// Groups of one From number that are remembered, and that are named, at most.
const GROUPS: usize = 1_000;
const GROUPS_NAMED: usize = 5;

/// The From numbers whose last texts were refused.
#[derive(Debug, Default)]
pub(crate) struct RefusedSenders {
    /// So that a text that is sent costs no lock while all are.
    any: AtomicBool,
    senders: Mutex<HashMap<Arc<str>, RefusedSender>>,
}

/// Refusals in a row.
#[derive(Debug)]
struct RefusedSender {
    groups: BTreeSet<GroupId>,
    /// Whether it is a group's own, and not that of the settings.
    is_of_group: bool,
    code: Option<ErrorCode>,
    count: u64,
    since: OffsetDateTime,
    last: Instant,
}

impl RefusedSenders {
    /// Notes that the provider has refused the From number of a group.
    pub(super) fn refused(&self, group: &Group, sender: Arc<str>, code: Option<ErrorCode>) {
        let mut senders = self.lock();
        if senders.len() >= REMEMBERED && !senders.contains_key(&sender) {
            senders.retain(|_, refused| refused.last.elapsed() < LISTED_FOR);
            if senders.len() >= REMEMBERED {
                return;
            }
        }
        let refused = senders.entry(sender).or_insert_with(|| RefusedSender {
            groups: BTreeSet::new(),
            is_of_group: group.options.sms_from.is_some(),
            code,
            count: 0,
            since: OffsetDateTime::now_utc(),
            last: Instant::now(),
        });
        if refused.groups.len() < GROUPS {
            refused.groups.insert(group.id);
        }
        (refused.code, refused.last) = (code, Instant::now());
        refused.count += 1;
        self.any.store(true, Ordering::Release);
    }

    /// Notes that the provider has taken a text from this number.
    pub(super) fn accepted(&self, sender: impl Fn() -> Arc<str>) {
        if self.any.load(Ordering::Acquire) {
            let mut senders = self.lock();
            senders.remove(&sender());
            self.any.store(!senders.is_empty(), Ordering::Release);
        }
    }

    /// For `/readyz`. `sender` is a group's From number now: where it has changed since, the problem is over.
    pub(crate) fn problems(&self, sender: impl Fn(GroupId) -> Option<Arc<str>>) -> Vec<String> {
        let senders = self.lock();
        let mut listed: Vec<_> = senders
            .iter()
            .filter(|(_, refused)| refused.last.elapsed() < LISTED_FOR)
            .map(|(number, refused)| {
                let groups =
                    refused.groups.iter().copied().filter(|group| sender(*group).as_ref() == Some(number));
                (number, refused, groups.collect::<Vec<_>>())
            })
            .filter(|(_, _, groups)| !groups.is_empty())
            .collect();
        listed.sort_by_key(|(number, refused, _)| (std::cmp::Reverse(refused.count), Arc::clone(number)));
        listed.iter().take(LISTED).map(|(number, refused, groups)| refused.text(number, groups)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, RefusedSender>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RefusedSender {
    fn text(&self, sender: &str, groups: &[GroupId]) -> String {
        let Self { is_of_group, code, count, since, .. } = self;
        let since = since.replace_nanosecond(0).unwrap_or(*since).format(&Rfc3339).unwrap_or_default();
        let meaning = code.and_then(meaning).map(|meaning| format!(", {meaning}")).unwrap_or_default();
        let code = code.map(|code| format!(" (its code {code}{meaning})")).unwrap_or_default();
        let first = groups.first().map(ToString::to_string).unwrap_or_default();
        let set = format!("session-invite groups set {first} --sms-from NUMBER");
        let remedy = if *is_of_group {
            format!("give the group a number of the account, which the provider's console lists: {set}")
        } else {
            format!(
                "set SMS_FROM (or SMS_MESSAGING_SERVICE_SID) to one of the account, which the provider's console lists, and \
                 restart the workers one after the other; or give a group one of its own: {set}"
            )
        };
        format!(
            "the provider refuses the sender {sender} of {}{code}: {count} texts in a row since {since}. Invites with it fail at \
             once as provider_misconfigured. What to do: {remedy}",
            named(groups)
        )
    }
}

/// What the provider's documentation says of a code.
fn meaning(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        codes::FROM_INVALID => "it is no valid number",
        codes::FROM_NOT_OF_ACCOUNT => "it is not the account's",
        codes::FROM_CANNOT_SEND => "it is not the account's, or cannot send texts to that country",
        codes::FROM_NOT_SMS_CAPABLE => "it cannot send texts",
        _ => return None,
    })
}

/// `group 72`, or `groups 7, 8 and 3 more`.
fn named(groups: &[GroupId]) -> String {
    let named: Vec<_> = groups.iter().take(GROUPS_NAMED).map(ToString::to_string).collect();
    let more = groups.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} {}{more}", if groups.len() == 1 { "group" } else { "groups" }, named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_few_groups_are_named() {
        let named = |ids: &[i64]| {
            let groups: Vec<_> = ids.iter().filter_map(|id| GroupId::new(*id)).collect();
            super::named(&groups)
        };
        assert_eq!(named(&[72]), "group 72");
        assert_eq!(named(&[7, 8]), "groups 7, 8");
        assert_eq!(named(&[1, 2, 3, 4, 5, 6, 7]), "groups 1, 2, 3, 4, 5 and 2 more");
    }
}
