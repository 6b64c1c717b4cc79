//! What a `dead replay` did, or would do.

use super::words::{messages, not_looked_at};
use crate::queue::dead::Kind;
use serde::Serialize;
use std::fmt::Write as _;
use uuid::Uuid;

/// What a message is replayed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    Request,
    /// Without its credential, by its row.
    Session(Uuid),
    Reply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Replay,
    /// A copy of one that is replayed is taken out with it.
    Drop,
    Stay,
}

/// What became of one message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub id: String,
    pub kind: Option<Kind>,
    pub action: Action,
    /// Where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The session that it is replayed by, without its credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Uuid>,
    /// Why it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub dry_run: bool,
    replayed: usize,
    requests: usize,
    /// Of the requests, those that went by their sessions.
    sessions: usize,
    replies: usize,
    copies: usize,
    pub stayed: usize,
    /// Not looked at, as there are so many.
    pub beyond: u32,
    pub messages: Vec<Line>,
}

impl Report {
    pub fn new(dry_run: bool) -> Self {
        Self { dry_run, ..Self::default() }
    }

    pub fn replayed(&mut self, by: As) {
        self.replayed += 1;
        match by {
            As::Reply => self.replies += 1,
            As::Request => self.requests += 1,
            As::Session(_) => {
                self.requests += 1;
                self.sessions += 1;
            }
        }
    }

    pub fn add(&mut self, line: Line) {
        match line.action {
            Action::Stay => self.stayed += 1,
            Action::Drop => self.copies += 1,
            Action::Replay => {}
        }
        self.messages.push(line);
    }

    /// For people. One by one only what somebody has to look at.
    pub fn sentence(&self, queue: &str) -> String {
        let would = if self.dry_run { " would be" } else { "" };
        let mut said = format!("{}{would} replayed", messages(self.replayed));
        let parts = [
            (self.requests - self.sessions, "as requests"),
            (self.sessions, "by their sessions"),
            (self.replies, "as replies"),
        ];
        let parts = parts.into_iter().filter(|(count, _)| *count > 0);
        let parts: Vec<_> = parts.map(|(count, what)| format!("{count} {what}")).collect();
        if !parts.is_empty() {
            let _ = write!(said, " ({})", parts.join(", "));
        }
        if self.copies > 0 {
            let _ = write!(said, ", with {} of them", if self.copies == 1 { "a copy" } else { "copies" });
        }
        match self.stayed {
            0 => {}
            1 => _ = write!(said, "; 1 stays in {queue}"),
            more => _ = write!(said, "; {more} stay in {queue}"),
        }
        if self.beyond > 0 {
            said += &not_looked_at(self.beyond);
        }
        for line in self.messages.iter().filter(|line| self.dry_run || line.why.is_some()) {
            let _ = write!(said, "\n  {}  {}", line.id, line.told());
        }
        said
    }
}

impl Line {
    fn told(&self) -> String {
        let to = self.to.as_deref().unwrap_or_default();
        match (self.action, &self.why, self.session_id) {
            (Action::Drop, ..) => "a copy of another".to_owned(),
            (_, Some(why), _) => format!("stays: {why}"),
            (_, None, Some(session)) => format!("to {to}, for session {session}"),
            (_, None, None) => format!("to {to}"),
        }
    }
}
