//! One line of `dead list`.

use super::mask;
use crate::queue::dead::{Kind, Letter};
use lapin::types::ShortString;
use serde::Serialize;

/// Why a dead letter has neither kind nor properties.
pub const NOT_DECODED: &str = "its properties cannot be decoded; no worker put it there";

/// What is seen of a dead letter; safe for a terminal.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// In the queue, from 1 on; others may be in front of it the next time.
    pub position: u32,
    pub id: String,
    /// `None` for what no worker put there.
    pub kind: Option<Kind>,
    pub code: Option<String>,
    pub reason: Option<String>,
    pub attempts: Option<i64>,
    pub first_at: Option<String>,
    pub last_at: Option<String>,
    /// The sender's.
    pub message_id: Option<String>,
    /// That it was meant for.
    pub queue: Option<String>,
}

impl Entry {
    pub fn new(letter: &Letter, position: u32) -> Self {
        let text = |name: &str| letter.text(name).filter(|text| !text.is_empty());
        let known = |name: &str| text(name).map(|text| mask::known(&text));
        let time = |name: &str| text(name).map(|text| mask::time(&text));
        let message_id = letter.message_id();
        Self {
            position,
            id: letter.id.clone(),
            kind: letter.kind(),
            code: known("x-code"),
            reason: if letter.is_decoded { known("x-reason") } else { Some(NOT_DECODED.to_owned()) },
            attempts: letter.number("x-attempts"),
            first_at: time("x-first-at"),
            last_at: time("x-last-at"),
            message_id: message_id.as_ref().map(ShortString::as_str).map(mask::known),
            queue: known("x-queue"),
        }
    }

    pub const HEADER: [&str; 10] =
        ["#", "ID", "KIND", "CODE", "REASON", "ATTEMPTS", "FIRST", "LAST", "MESSAGE ID", "QUEUE"];
    /// The column that is cut where the terminal is narrow.
    pub const REASON: usize = 4;

    pub fn cells(&self) -> [String; 10] {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        [
            self.position.to_string(),
            self.id.clone(),
            self.kind.map_or("-", Kind::as_str).to_owned(),
            shown(&self.code),
            shown(&self.reason),
            shown(&self.attempts.map(|attempts| attempts.to_string())),
            shown(&self.first_at),
            shown(&self.last_at),
            shown(&self.message_id),
            shown(&self.queue),
        ]
    }

    /// The same, one below the other.
    pub fn lines(&self) -> Vec<(String, String)> {
        let names =
            ["position", "id", "kind", "code", "reason", "attempts", "first", "last", "message id", "queue"];
        names.into_iter().map(str::to_owned).zip(self.cells()).collect()
    }
}
