//! Groups whose session keys are nearly used up, for operators: their invites draw keys that are taken.

use crate::{group::Group, group_id::GroupId};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So many keys in a row that are taken show that a good part of all keys is.
const TAKEN_AT: u32 = 4;
/// A group is no longer reported so long after the last such invite.
const LISTED_FOR: Duration = Duration::from_mins(10);
/// Groups that are remembered, and that are reported, at most.
const REMEMBERED: usize = 1_000;
const LISTED: usize = 10;

/// The groups whose invites drew many keys that were taken.
#[derive(Debug, Default)]
pub(crate) struct KeySpaces(Mutex<HashMap<GroupId, CrowdedSpace>>);

#[derive(Debug, Clone)]
struct CrowdedSpace {
    name: Option<String>,
    key_length: u8,
    /// The most keys in a row that were taken.
    taken: u32,
    last: Instant,
}

impl KeySpaces {
    /// Notes how many keys in a row were taken for one session.
    pub(super) fn note(&self, group: &Group, taken: u32) {
        if taken < TAKEN_AT {
            return;
        }
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|_, space| space.last.elapsed() < LISTED_FOR);
        let before = groups.get(&group.id).map_or(0, |space| space.taken);
        if before > 0 || groups.len() < REMEMBERED {
            let space = CrowdedSpace {
                name: group.options.name.clone(),
                key_length: group.options.key_length,
                taken: taken.max(before),
                last: Instant::now(),
            };
            groups.insert(group.id, space);
        }
    }

    /// For `/readyz`. `key_length` is that of a group now: where it has changed since, the problem is over.
    pub(crate) fn problems(&self, key_length: impl Fn(GroupId) -> Option<u8>) -> Vec<String> {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut listed: Vec<_> = groups
            .iter()
            .filter(|(group, space)| {
                space.last.elapsed() < LISTED_FOR && key_length(**group) == Some(space.key_length)
            })
            .collect();
        listed.sort_by_key(|(group, space)| (std::cmp::Reverse(space.taken), group.get()));
        listed.into_iter().take(LISTED).map(|(group, space)| space.text(*group)).collect()
    }
}

impl CrowdedSpace {
    fn text(&self, group: GroupId) -> String {
        let Self { name, key_length, taken, .. } = self;
        let name = name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let longer = u32::from(*key_length) + 1;
        format!(
            "the session keys of group {group}{name} are nearly used up: of its keys with {key_length} digits {taken} in a row \
             were taken, and after 8 the invite gets a longer key. What to do: session-invite groups set {group} --key-length \
             {longer}; or a shorter --key-rest frees keys sooner"
        )
    }
}
