//! One dead letter with all that may be shown of it.

use super::{mask, row::DeadLetterRow};
use crate::{invite::request::LARGEST_BODY, masked::debug_shows, queue::dead::Letter};
use lapin::types::ShortString;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeadLetterView {
    #[serde(flatten)]
    pub(crate) entry: DeadLetterRow,
    /// Equal messages, itself included.
    copies: usize,
    properties: Map<String, Value>,
    headers: Map<String, Value>,
    body_bytes: usize,
    /// For a body that is not JSON, or too large for a page. Nothing else of such a body is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_sha256: Option<String>,
    pub(crate) body: Option<Value>,
    /// Whether the body is too large for a page.
    #[serde(skip)]
    pub(crate) is_too_large: bool,
}

debug_shows!(DeadLetterView { entry });

impl DeadLetterView {
    /// With the whole body, for a command.
    pub(crate) fn new(letter: &Letter, position: u32, copies: usize) -> Self {
        Self::with(letter, (position, copies), mask::body(&letter.body))
    }

    /// For a page of a process that others use too: a body that is larger than any request is not read, as its values take many
    /// times its bytes.
    pub(crate) fn for_page(letter: &Letter, position: u32, copies: usize) -> Self {
        let is_too_large = letter.body.len() > LARGEST_BODY;
        let body = if is_too_large { None } else { mask::body(&letter.body) };
        Self { is_too_large, ..Self::with(letter, (position, copies), body) }
    }

    fn with(letter: &Letter, (position, copies): (u32, usize), body: Option<Value>) -> Self {
        Self {
            entry: DeadLetterRow::new(letter, position),
            copies,
            properties: properties(letter),
            headers: letter.headers().map(|(name, value)| mask::header(name, value)).collect(),
            body_bytes: letter.body.len(),
            body_sha256: body.is_none().then(|| sha256(&letter.body)),
            body,
            is_too_large: false,
        }
    }

    /// Names and values, without the body.
    pub(crate) fn lines(&self) -> Vec<(String, String)> {
        let mut lines: Vec<(String, String)> = self.entry.lines();
        if self.copies > 1 {
            lines.push(("copies".to_owned(), self.copies.to_string()));
        }
        for (part, fields) in [("property", &self.properties), ("header", &self.headers)] {
            lines.extend(fields.iter().map(|(name, value)| {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                (format!("{part} {name}"), value)
            }));
        }
        let body = match &self.body_sha256 {
            Some(sha256) if self.is_too_large => format!("{} bytes, SHA-256 {sha256}", self.body_bytes),
            Some(sha256) => format!("{} bytes, not JSON, SHA-256 {sha256}", self.body_bytes),
            None => format!("{} bytes of JSON", self.body_bytes),
        };
        lines.push(("body".to_owned(), body));
        lines
    }
}

fn properties(letter: &Letter) -> Map<String, Value> {
    let properties = &letter.properties;
    let mut shown = Map::new();
    let texts = [
        ("messageId", properties.message_id()),
        ("correlationId", properties.correlation_id()),
        ("replyTo", properties.reply_to()),
        ("contentType", properties.content_type()),
        ("contentEncoding", properties.content_encoding()),
        ("type", properties.kind()),
        ("appId", properties.app_id()),
        ("userId", properties.user_id()),
        ("expiration", properties.expiration()),
    ];
    for (name, text) in texts {
        if let Some(text) = text.as_ref().map(ShortString::as_str) {
            shown.insert(name.to_owned(), mask::known(text).into());
        }
    }
    if let Some(at) = properties.timestamp() {
        shown.insert("timestamp".to_owned(), (*at).into());
    }
    for (name, number) in [("priority", properties.priority()), ("deliveryMode", properties.delivery_mode())]
    {
        if let Some(number) = number {
            shown.insert(name.to_owned(), (*number).into());
        }
    }
    shown
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
