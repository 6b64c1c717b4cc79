//! Counts in words.

use crate::queue::dead::MAX_READ;

/// The note on messages that a command did not look at, as its memory and time are bounded.
pub(super) fn not_looked_at(beyond: u32) -> String {
    format!("; {beyond} behind the first {MAX_READ} were not looked at")
}

/// The note on messages that were there at the beginning, and could not be fetched.
pub(super) fn held_by_others(held: u32) -> String {
    format!("; {held} were not read, as another command or the console had them")
}

pub(super) fn messages(count: usize) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}
