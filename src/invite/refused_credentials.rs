//! Groups whose credentials are all refused, for operators: a key was rotated, or a clock is wrong.

use super::metrics;
use crate::{group::Group, group_id::GroupId, refusal::Code};
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// So many refusals in a row are reported.
const LISTED_AT: u64 = 5;
/// A group is no longer reported so long after its last refusal.
const LISTED_FOR: Duration = Duration::from_mins(10);
/// Groups that are remembered, and that are reported, at most.
const REMEMBERED: usize = 1_000;
const LISTED: usize = 10;

/// The groups whose last credentials were refused.
#[derive(Debug, Default)]
pub(crate) struct RefusedCredentials {
    /// So that a good credential costs no lock while all are good.
    any: AtomicBool,
    groups: Mutex<HashMap<GroupId, RefusalRun>>,
}

/// Refusals in a row.
#[derive(Debug, Clone)]
struct RefusalRun {
    name: Option<String>,
    count: u64,
    expired: u64,
    since: OffsetDateTime,
    last: Instant,
}

impl RefusedCredentials {
    /// Notes a refused credential of a group that exists.
    pub(super) fn refused(&self, group: &Group, code: Code) {
        if !matches!(code, Code::CredentialInvalid | Code::CredentialExpired) {
            return;
        }
        let mut groups = self.lock();
        if groups.len() >= REMEMBERED && !groups.contains_key(&group.id) {
            groups.retain(|_, run| run.last.elapsed() < LISTED_FOR);
            if groups.len() >= REMEMBERED {
                return;
            }
        }
        let run = groups.entry(group.id).or_insert_with(|| RefusalRun {
            name: group.options.name.clone(),
            count: 0,
            expired: 0,
            since: OffsetDateTime::now_utc(),
            last: Instant::now(),
        });
        run.count += 1;
        run.expired += u64::from(code == Code::CredentialExpired);
        run.last = Instant::now();
        self.any.store(true, Ordering::Release);
    }

    /// Notes a good credential of a group.
    pub(super) fn accepted(&self, group: GroupId) {
        if self.any.load(Ordering::Acquire) {
            let mut groups = self.lock();
            groups.remove(&group);
            self.any.store(!groups.is_empty(), Ordering::Release);
        }
    }

    /// For `/readyz`: the groups with the most refusals.
    pub(crate) fn problems(&self) -> Vec<String> {
        let groups = self.lock();
        let mut listed: Vec<_> = groups.iter().filter(|(_, run)| run.is_listed()).collect();
        listed.sort_by_key(|(group, run)| (std::cmp::Reverse(run.count), group.get()));
        listed.into_iter().take(LISTED).map(|(group, run)| run.text(*group)).collect()
    }

    /// For `/metrics`.
    pub(super) fn measure(&self) {
        let groups = self.lock();
        let listed = groups.iter().filter(|(_, run)| run.is_listed());
        metrics::credentials_refused(listed.map(|(group, run)| (*group, run.count)));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GroupId, RefusalRun>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RefusalRun {
    fn is_listed(&self) -> bool {
        self.count >= LISTED_AT && self.last.elapsed() < LISTED_FOR
    }

    fn text(&self, group: GroupId) -> String {
        let Self { name, count, expired, since, .. } = self;
        let name = name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let since = since.replace_nanosecond(0).unwrap_or(*since).format(&Rfc3339).unwrap_or_default();
        let start =
            format!("all credentials of group {group}{name} are refused: {count} in a row since {since}");
        if *expired == *count {
            format!(
                "{start}, with a right signature and an expiry that is over: its senders reuse old ones, or a clock is wrong. \
                 What to do: compare the clocks of this machine and of the sender: date -u"
            )
        } else {
            format!(
                "{start}, {expired} of them as expired and the others as not signed with a key of the group: a key was rotated, \
                 or the sender's clock is far off. What to do: session-invite groups show {group} lists its keys; the sender \
                 has to sign with one that is active (and compare its clock: date -u)"
            )
        }
    }
}
