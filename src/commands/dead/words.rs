//! Counts in words.

use crate::queue::dead::MOST;

/// One command's memory and time are bounded.
pub fn not_looked_at(beyond: u32) -> String {
    format!("; {beyond} behind the first {MOST} were not looked at")
}

pub fn messages(count: usize) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}
