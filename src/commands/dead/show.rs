//! `dead show`: all of one dead letter that may be seen.

use super::{entry::Entry, mask};
use crate::masked::debug_shows;
use crate::{
    output::{self, Format},
    queue::dead::Letter,
};
use lapin::types::ShortString;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    entry: Entry,
    /// Messages that are equal to it, itself counted.
    copies: usize,
    properties: Map<String, Value>,
    headers: Map<String, Value>,
    body_bytes: usize,
    /// Of a body that is not JSON, of which nothing else is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_sha256: Option<String>,
    body: Option<Value>,
}

debug_shows!(Shown { entry });

pub fn print(letter: &Letter, position: u32, copies: usize, format: Format) -> anyhow::Result<()> {
    let body = mask::body(&letter.body);
    let shown = Shown {
        entry: Entry::new(letter, position),
        copies,
        properties: properties(letter),
        headers: letter.headers().map(|(name, value)| mask::header(name, value)).collect(),
        body_bytes: letter.body.len(),
        body_sha256: body.is_none().then(|| sha256(&letter.body)),
        body,
    };
    format.object(&shown, lines)?;
    if let (false, Some(body)) = (format.json, &shown.body) {
        output::print(&format!("\n{}", serde_json::to_string_pretty(body)?))?;
    }
    Ok(())
}

fn properties(letter: &Letter) -> Map<String, Value> {
    let was = &letter.properties;
    let mut shown = Map::new();
    let texts = [
        ("messageId", was.message_id()),
        ("correlationId", was.correlation_id()),
        ("replyTo", was.reply_to()),
        ("contentType", was.content_type()),
        ("contentEncoding", was.content_encoding()),
        ("type", was.kind()),
        ("appId", was.app_id()),
        ("userId", was.user_id()),
        ("expiration", was.expiration()),
    ];
    for (name, text) in texts {
        if let Some(text) = text.as_ref().map(ShortString::as_str) {
            shown.insert(name.to_owned(), mask::known(text).into());
        }
    }
    if let Some(at) = was.timestamp() {
        shown.insert("timestamp".to_owned(), (*at).into());
    }
    for (name, number) in [("priority", was.priority()), ("deliveryMode", was.delivery_mode())] {
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

fn lines(shown: &Shown) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = shown.entry.lines();
    if shown.copies > 1 {
        lines.push(("copies".to_owned(), shown.copies.to_string()));
    }
    for (part, fields) in [("property", &shown.properties), ("header", &shown.headers)] {
        lines.extend(fields.iter().map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (format!("{part} {name}"), value)
        }));
    }
    let body = match &shown.body_sha256 {
        Some(sha256) => format!("{} bytes, not JSON, SHA-256 {sha256}", shown.body_bytes),
        None => format!("{} bytes of JSON", shown.body_bytes),
    };
    lines.push(("body".to_owned(), body));
    lines
}
