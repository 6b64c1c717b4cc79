//! What must hold for a session to begin, as the statement that inserts its row sees it: its number wants texts from this
//! sender, and has not had too many of the group's (docs/LIMITS.md).

use super::row::NewRow;
use crate::masked::debug_shows;
use crate::{
    optouts::Hashes,
    rate_limit::RateLimit,
    refusal::{Code, Refusal},
};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use uuid::Uuid;

/// Ids say when they were made, by their worker's clock. A row counts as long as that clock, and what the row then waited
/// for its statement, are no further off than this.
const CLOCKS_DIFFER_BY: Duration = Duration::from_mins(15);

/// What is asked before a session begins.
#[derive(Clone)]
pub struct Gate {
    /// Whom the text would come from.
    pub sender: Arc<str>,
    /// What stands for the number among the opt-outs.
    pub hashes: Hashes,
    /// Texts of the group to one number.
    pub per_number: Option<RateLimit>,
}

debug_shows!(Gate { sender });

/// Why a session does not begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gated {
    OptedOut,
    /// The number has had its texts; after that there is room for one more.
    TooMany {
        after: Duration,
    },
    /// There is room, but others of the same statement may take all of it: to be asked again.
    Crowded,
}

/// The gates of the sessions that a statement begins, as its columns. A row has a second gate where its number is written
/// in two ways.
#[derive(Default)]
pub struct Gates<'a> {
    pub ids: Vec<Uuid>,
    pub groups: Vec<i64>,
    pub phones: Vec<&'a str>,
    pub senders: Vec<&'a str>,
    pub phone_hashes: Vec<&'a [u8]>,
    /// Texts to the number at most; `None` for no limit.
    pub at_most: Vec<Option<i32>>,
    /// Which of the statement's rows for this group and number it is, from 1.
    pub nth: Vec<i32>,
    /// In which time, in seconds.
    pub window: Vec<Option<f64>>,
    /// A row whose id is below this is too old to count.
    pub since: Vec<Uuid>,
}

debug_shows!(Gates<'_> { ids });

impl<'a> Gates<'a> {
    /// Of those rows that begin a session.
    pub fn of(rows: &'a [NewRow]) -> Self {
        let mut gates = Self::default();
        let mut to_the_same: HashMap<(i64, &str), i32> = HashMap::new();
        let now = SystemTime::now();
        for row in rows {
            let Some(begun) = row.begun() else { continue };
            let (group, gate) = (row.about.group.get(), &begun.gate);
            let phone = row.asked.phone.as_deref().unwrap_or_default();
            let nth = to_the_same.entry((group, phone)).or_default();
            *nth += 1;
            gates.push(row.id, (group, phone), gate, &gate.hashes.own);
            gates.at_most.push(gate.per_number.map(|limit| i32::try_from(limit.count).unwrap_or(i32::MAX)));
            gates.nth.push(*nth);
            gates.window.push(gate.per_number.map(|limit| limit.window.as_secs_f64()));
            gates.since.push(first_id(now, gate.per_number.map_or(Duration::ZERO, |limit| limit.window)));
            // The other way of writing the number only asks for an opt-out: the limit counts by the one that is texted.
            if let Some(twin) = &gate.hashes.twin {
                gates.push(row.id, (group, phone), gate, twin);
                gates.at_most.push(None);
                gates.nth.push(1);
                gates.window.push(None);
                gates.since.push(row.id);
            }
        }
        gates
    }

    fn push(&mut self, id: Uuid, (group, phone): (i64, &'a str), gate: &'a Gate, phone_hash: &'a [u8; 32]) {
        self.ids.push(id);
        self.groups.push(group);
        self.phones.push(phone);
        self.senders.push(&gate.sender);
        self.phone_hashes.push(phone_hash);
    }
}

/// Below the ids of all rows that may be within a window that ends now.
fn first_id(now: SystemTime, window: Duration) -> Uuid {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(window + CLOCKS_DIFFER_BY);
    // The first 48 bits of a UUID version 7 (RFC 9562, section 5.7) are milliseconds.
    Uuid::from_u128(since.as_millis() << 80)
}

/// The answer to an invite whose number wants no texts.
pub fn opted_out() -> Refusal {
    Refusal::new(Code::OptedOut, "the number has opted out of texts").field("smsPhone")
}

/// The answer to an invite whose number has had its texts.
pub fn too_many(after: Duration) -> Refusal {
    let message = "the number has had as many of the group's texts as it may have for now";
    Refusal::new(Code::RateLimited, message).field("smsPhone").retry_after(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_window_is_above_its_bound_and_an_older_one_is_not() {
        let now = SystemTime::now();
        let bound = first_id(now, Duration::from_hours(1));
        let made = |ago: Duration| {
            let at = now.duration_since(UNIX_EPOCH).unwrap().checked_sub(ago).unwrap();
            Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, at.as_secs(), at.subsec_nanos()))
        };
        assert!(bound < Uuid::now_v7() && bound < made(Duration::from_mins(74)));
        assert!(bound > made(Duration::from_mins(76)));
    }
}
