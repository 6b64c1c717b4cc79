//! Counts in words.

use crate::queue::dead::MAX_READ;

/// The note on messages that a command did not look at, as its memory and time are bounded.
pub(super) fn not_looked_at(beyond: u32) -> String {
    format!("; {beyond} behind the first {MAX_READ} were not looked at")
}

pub(super) fn messages(count: usize) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}
