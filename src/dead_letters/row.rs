//! One line of a list of dead letters.

use super::mask;
use crate::{
    group_id::GroupId,
    masked::debug_shows,
    queue::dead::{ID_DIGITS, Letter, LetterKind},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use lapin::types::ShortString;
use serde::Serialize;
use std::{fmt, str::FromStr};

/// Why a dead letter has neither kind nor properties.
pub(super) const NOT_DECODED: &str = "its properties cannot be decoded; no worker put it there";

/// The part of a dead letter that may be shown. It is safe for a terminal.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeadLetterRow {
    /// Its position in the queue, from 1. Other messages may come before it the next time.
    pub position: u32,
    pub id: String,
    /// `None` for a message that no worker put there.
    pub kind: Option<LetterKind>,
    /// The group that it names; nobody has checked it.
    pub group: Option<i64>,
    pub code: Option<String>,
    pub reason: Option<String>,
    pub attempts: Option<i64>,
    pub first_at: Option<String>,
    pub last_at: Option<String>,
    /// The sender's message id.
    pub message_id: Option<String>,
    /// The queue that it was meant for.
    pub queue: Option<String>,
    /// The number in its body, masked.
    #[serde(skip)]
    pub phone: Option<String>,
    #[serde(skip)]
    pub address: LetterAddress,
}

debug_shows!(DeadLetterRow { id, kind, group });

/// Names a letter on pages: by its id, as commands name it, and by all of it, as ids of different letters may be equal by chance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LetterAddress {
    id: String,
    digest: [u8; 32],
}

impl LetterAddress {
    pub(super) fn of(letter: &Letter) -> Self {
        Self { id: letter.id.clone(), digest: letter.digest() }
    }

    /// Whether this is the letter. Only if the id is right, its body is hashed.
    pub(super) fn names(&self, letter: &Letter) -> bool {
        self.id == letter.id && self.digest == letter.digest()
    }

    /// The id, by which commands find the letter.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for LetterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.id, URL_SAFE_NO_PAD.encode(self.digest))
    }
}

impl FromStr for LetterAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (id, digest) = text.split_once('-').ok_or(())?;
        let digest = URL_SAFE_NO_PAD.decode(digest).map_err(|_| ())?.try_into().map_err(|_| ())?;
        let is_id = id.len() == ID_DIGITS && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| Self { id: id.to_owned(), digest }).ok_or(())
    }
}

impl DeadLetterRow {
    pub(crate) fn new(letter: &Letter, position: u32) -> Self {
        let text = |name: &str| letter.text(name).filter(|text| !text.is_empty());
        let known = |name: &str| text(name).map(|text| mask::known(&text));
        let time = |name: &str| text(name).map(|text| mask::time(&text));
        let message_id = letter.message_id();
        Self {
            position,
            id: letter.id.clone(),
            kind: letter.kind(),
            group: letter.group().map(GroupId::get),
            code: known("x-code"),
            reason: if letter.is_decoded { known("x-reason") } else { Some(NOT_DECODED.to_owned()) },
            attempts: letter.number("x-attempts"),
            first_at: time("x-first-at"),
            last_at: time("x-last-at"),
            message_id: message_id.as_ref().map(ShortString::as_str).map(mask::known),
            queue: known("x-queue"),
            phone: letter.masked_phone(),
            address: LetterAddress::of(letter),
        }
    }

    pub(crate) const HEADER: [&str; 11] =
        ["#", "ID", "KIND", "GROUP", "CODE", "REASON", "ATTEMPTS", "FIRST", "LAST", "MESSAGE ID", "QUEUE"];
    /// The column that is cut where the terminal is narrow.
    pub(crate) const REASON: usize = 5;

    pub(crate) fn cells(&self) -> [String; 11] {
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        [
            self.position.to_string(),
            self.id.clone(),
            self.kind.map_or("-", LetterKind::as_str).to_owned(),
            shown(&self.group.map(|group| group.to_string())),
            shown(&self.code),
            shown(&self.reason),
            shown(&self.attempts.map(|attempts| attempts.to_string())),
            shown(&self.first_at),
            shown(&self.last_at),
            shown(&self.message_id),
            shown(&self.queue),
        ]
    }

    /// Names and values.
    pub(super) fn lines(&self) -> Vec<(String, String)> {
        let names = [
            "position",
            "id",
            "kind",
            "group",
            "code",
            "reason",
            "attempts",
            "first",
            "last",
            "message id",
            "queue",
        ];
        names.into_iter().map(str::to_owned).zip(self.cells()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::BasicProperties;

    #[test]
    fn an_address_is_read_as_it_was_written() {
        let address = LetterAddress::of(&Letter::new(BasicProperties::default(), b"{}".to_vec()));
        let text = address.to_string();
        assert_eq!(text.parse(), Ok(address));
        let (id, digest) = text.split_once('-').unwrap();
        for wrong in [
            "",
            "-",
            "AAAA",
            id,
            digest,
            &format!("{id}-AAAA"),
            &format!("{text}="),
            &format!("{text}A"),
            &text[1..],
            &text.to_uppercase(),
            &format!("\u{202e}{}", &text[1..]),
            &format!("-{digest}"),
            &format!("$(reboot) ; -{digest}"),
        ] {
            assert_eq!(wrong.parse::<LetterAddress>(), Err(()), "{wrong:?}");
        }
    }

    #[test]
    fn the_number_of_a_body_is_masked_and_what_is_none_is_left_out() {
        let phone = |body: &[u8]| {
            DeadLetterRow::new(&Letter::new(BasicProperties::default(), body.to_vec()), 1).phone
        };
        let shown = phone(br#"{"smsPhone": "(201) 555-0123"}"#).unwrap();
        assert!(shown.contains('*') && !shown.contains("5550123"), "{shown}");
        for body in [
            r#"{"smsPhone": 1.2015550123e10}"#,
            "\u{feff} {\"smsPhone\": 12015550123.0}",
            r#"{"\ud800": 1, "smsPhone": "201-555-0123"}"#,
        ] {
            assert_eq!(phone(body.as_bytes()).as_deref(), Some(shown.as_str()), "{body}");
        }
        for none in [&b"\xff"[..], b"", b"[]", br#"{"smsPhone": {"a": 1}}"#, br#"{"smsPhone": "<script>"}"#] {
            assert_eq!(phone(none), None);
        }
        let large = format!("{{\"smsPhone\": \"(201) 555-0123\", \"a\": [{}0]}}", "0,".repeat(40_000));
        assert_eq!(phone(large.as_bytes()), None);
    }
}
