//! What must hold for a session to begin, as the statement that inserts its row checks it: its number has not opted out of
//! this sender's texts, and has not had too many of the group's (docs/LIMITS.md).

use super::new_row::{NewRow, NewSession};
use crate::{masked::debug_shows, phone::PhoneNumber};
use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use uuid::Uuid;

/// An id holds the time when it was made, by its worker's clock. A row counts if that clock's error and the row's wait for
/// its statement are within this.
const CLOCKS_DIFFER_BY: Duration = Duration::from_mins(15);

/// The gates of the sessions that a statement begins, as its columns. A row has a second gate if its number is written in
/// two ways.
#[derive(Default)]
pub(super) struct GateColumns<'a> {
    pub(super) ids: Vec<Uuid>,
    pub(super) groups: Vec<i64>,
    pub(super) phones: Vec<&'a str>,
    pub(super) senders: Vec<&'a str>,
    pub(super) phone_hashes: Vec<&'a [u8]>,
    /// Texts to the number at most; `None` for no limit.
    pub(super) at_most: Vec<Option<i32>>,
    /// The row's number among the statement's rows for this group and phone number, from 1.
    pub(super) nth: Vec<i32>,
    /// The limit's window, in seconds.
    pub(super) window: Vec<Option<f64>>,
    /// A row with a lower id is too old to count.
    pub(super) since: Vec<Uuid>,
}

debug_shows!(GateColumns<'_> { ids });

impl<'a> GateColumns<'a> {
    /// Of those rows that begin a session.
    pub(super) fn of(rows: &'a [NewRow]) -> Self {
        let mut gates = Self::default();
        let mut rows_to_number: HashMap<(i64, &PhoneNumber), i32> = HashMap::new();
        let now = SystemTime::now();
        for row in rows {
            let Some(session) = row.new_session() else { continue };
            let nth = rows_to_number.entry((row.request.group.get(), &session.phone)).or_default();
            *nth += 1;
            let limit = session.per_number;
            gates.push(row, session, &session.hashes.own);
            gates.at_most.push(limit.map(|limit| i32::try_from(limit.count).unwrap_or(i32::MAX)));
            gates.nth.push(*nth);
            gates.window.push(limit.map(|limit| limit.window.as_secs_f64()));
            gates.since.push(first_id(now, limit.map_or(Duration::ZERO, |limit| limit.window)));
            // The other way of writing the number matters for an opt-out only: the limit counts the number that is texted.
            if let Some(twin) = &session.hashes.twin {
                gates.push(row, session, twin);
                gates.at_most.push(None);
                gates.nth.push(1);
                gates.window.push(None);
                gates.since.push(row.id);
            }
        }
        gates
    }

    fn push(&mut self, row: &NewRow, session: &'a NewSession, phone_hash: &'a [u8; 32]) {
        self.ids.push(row.id);
        self.groups.push(row.request.group.get());
        self.phones.push(session.phone.as_e164());
        self.senders.push(&session.sender);
        self.phone_hashes.push(phone_hash);
    }
}

/// An id below those of all rows that may be within a window that ends now.
fn first_id(now: SystemTime, window: Duration) -> Uuid {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(window + CLOCKS_DIFFER_BY);
    // The first 48 bits of a UUID version 7 (RFC 9562, section 5.7) are milliseconds.
    Uuid::from_u128(since.as_millis() << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_within_the_window_is_above_the_bound_and_an_older_one_is_below() {
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
