//! The report of a `dead replay`.

use super::words::{messages, not_looked_at};
use crate::{
    dead_letters::{LetterReplay, ReplayAction},
    queue::dead::LetterKind,
};
use serde::Serialize;
use std::fmt::Write as _;

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplayReport {
    pub dry_run: bool,
    replayed: usize,
    requests: usize,
    /// Of the requests, those that went by their sessions.
    sessions: usize,
    replies: usize,
    copies: usize,
    pub stayed: usize,
    /// Messages that were not looked at, as there are too many.
    pub beyond: u32,
    pub messages: Vec<LetterReplay>,
}

impl ReplayReport {
    pub(super) fn new(dry_run: bool) -> Self {
        Self { dry_run, ..Self::default() }
    }

    pub(super) fn add(&mut self, row: LetterReplay) {
        match row.action {
            ReplayAction::Stay => self.stayed += 1,
            ReplayAction::Drop => self.copies += 1,
            ReplayAction::Replay => {
                self.replayed += 1;
                match row.kind {
                    Some(LetterKind::Reply) => self.replies += 1,
                    _ => self.requests += 1,
                }
                self.sessions += usize::from(row.session_id.is_some());
            }
        }
        self.messages.push(row);
    }

    /// The report for people. It lists only the messages that need attention, and in a dry run all.
    pub(super) fn sentence(&self, queue: &str) -> String {
        let would = if self.dry_run { " would be" } else { "" };
        let mut text = format!("{}{would} replayed", messages(self.replayed));
        let parts = [
            (self.requests - self.sessions, "as requests"),
            (self.sessions, "by their sessions"),
            (self.replies, "as replies"),
        ];
        let parts = parts.into_iter().filter(|(count, _)| *count > 0);
        let parts: Vec<_> = parts.map(|(count, what)| format!("{count} {what}")).collect();
        if !parts.is_empty() {
            let _ = write!(text, " ({})", parts.join(", "));
        }
        if self.copies > 0 {
            let _ = write!(text, ", with {} of them", if self.copies == 1 { "a copy" } else { "copies" });
        }
        match self.stayed {
            0 => {}
            1 => _ = write!(text, "; 1 stays in {queue}"),
            more => _ = write!(text, "; {more} stay in {queue}"),
        }
        if self.beyond > 0 {
            text += &not_looked_at(self.beyond);
        }
        for row in self.messages.iter().filter(|row| self.dry_run || row.why.is_some()) {
            let _ = write!(text, "\n  {}  {}", row.id, outcome(row));
        }
        text
    }
}

fn outcome(row: &LetterReplay) -> String {
    let to = row.to.as_deref().unwrap_or_default();
    match (row.action, &row.why, row.session_id) {
        (ReplayAction::Drop, ..) => "a copy of another".to_owned(),
        (ReplayAction::Replay, Some(why), _) => format!("to {to}; stays: {why}"),
        (ReplayAction::Stay, Some(why), _) => format!("stays: {why}"),
        (_, None, Some(session)) => format!("to {to}, for session {session}"),
        (_, None, None) => format!("to {to}"),
    }
}
