//! What `trace` prints.

use crate::{
    dead_letters::InviteLetters,
    masked::debug_shows,
    output::plain,
    sessions::{
        lookup::SessionDetails,
        trace::{FoundBy, Wanted},
    },
    story::{
        self, Entry, Found, Sources,
        words::{self, shown, time},
    },
};
use serde::Serialize;
use std::fmt::Write as _;
use time::OffsetDateTime;
use uuid::Uuid;

/// Another session with the same id.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OtherSession {
    id: Uuid,
    group: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    status: &'static str,
    found_by: FoundBy,
}

/// Whether the dead letters could be read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LettersRead {
    read: bool,
    /// Those further back in the queue than a command reads.
    unread: u32,
    /// Why there may be more among those that are not further back.
    incomplete: Option<String>,
    error: Option<String>,
}

/// The answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TraceReport {
    id: String,
    found: bool,
    found_by: Option<FoundBy>,
    session: Option<SessionDetails>,
    /// What comes next, and what is missing.
    notes: Vec<String>,
    story: Vec<Entry>,
    others: Vec<OtherSession>,
    has_more_others: bool,
    /// The sessions since then were read; `None` if an index found the id.
    #[serde(with = "time::serde::rfc3339::option")]
    searched_since: Option<OffsetDateTime>,
    dead_letters: LettersRead,
    /// As what number the id was read.
    phone: Option<String>,
}

debug_shows!(TraceReport { found, found_by });

impl TraceReport {
    pub(super) fn new(
        wanted: Wanted,
        searched_since: Option<OffsetDateTime>,
        others: Vec<Found>,
        has_more_others: bool,
        letters: &Result<InviteLetters, String>,
    ) -> Self {
        let other = |Found { session, by }: Found| OtherSession {
            id: session.id,
            group: session.group_id,
            created_at: session.created_at,
            status: session.status.as_str(),
            found_by: by,
        };
        let dead_letters = match letters {
            Ok(InviteLetters { unread, incomplete, .. }) => {
                LettersRead { read: true, unread: *unread, incomplete: incomplete.clone(), error: None }
            }
            Err(error) => {
                LettersRead { read: false, unread: 0, incomplete: None, error: Some(error.clone()) }
            }
        };
        let story = letters.iter().flat_map(|letters| &letters.found).map(story::letter).collect();
        Self {
            phone: wanted.phones.into_iter().next(),
            id: wanted.id,
            found: false,
            found_by: None,
            session: None,
            notes: Vec::new(),
            story,
            others: others.into_iter().map(other).collect(),
            has_more_others,
            searched_since,
            dead_letters,
        }
    }

    /// Tells the story of the session, with its dead letters.
    pub(super) fn tell(
        &mut self,
        Found { session, by }: Found,
        sources: &Sources,
        letters: &Result<InviteLetters, String>,
    ) {
        let found = letters.as_ref().map_or(&[][..], |letters| &letters.found);
        self.story = story::tell(&session, sources, found);
        self.notes = words::notes(&session, sources);
        (self.found, self.found_by, self.session) = (true, Some(by), Some(session));
    }

    /// Adds entries to the story, in their order.
    pub(super) fn add(&mut self, entries: impl Iterator<Item = Entry>) {
        self.story.extend(entries);
        story::sort(&mut self.story);
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        match (&self.session, self.found_by) {
            (Some(session), Some(by)) => text += &head(session, by),
            _ => text += &self.nothing(),
        }
        if !self.story.is_empty() {
            text.push('\n');
        }
        let begun = self.session.as_ref().map(|session| session.created_at);
        for entry in &self.story {
            let (at, since) = (entry.time(), entry.since(begun));
            let _ = writeln!(text, "{at:<24}  {since:>12}  {}", plain(&entry.text));
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text + &self.letters() + &self.other_sessions()
    }

    fn nothing(&self) -> String {
        let phone = self.phone.as_ref().map_or_else(String::new, |phone| format!(", the number {phone}"));
        let since = self.searched_since.map_or_else(String::new, time);
        format!(
            "no session is known by {}\n\n\
             Looked for: a session's id, a message id, a key that is held{phone}; and among the sessions since {since}: \
             a provider's id, a correlation id, a released key. `--since 30d` looks further back.\n\
             An invite that was refused before its sender was authenticated leaves no session: its reply has the \
             cause, and the worker's log the first of each minute.\n",
            plain(&self.id)
        )
    }

    fn letters(&self) -> String {
        let LettersRead { error, unread, incomplete, .. } = &self.dead_letters;
        let mut text = String::new();
        if let Some(error) = error {
            let _ = writeln!(text, "\nThe dead letters could not be read: {error}");
        }
        if let Some(why) = incomplete {
            let _ = writeln!(text, "\nNot all dead letters were read, so there may be more: {}", plain(why));
        }
        if *unread > 0 {
            let _ = writeln!(text, "\n{unread} dead letters are too far back in the queue to be read.");
        }
        text
    }

    fn other_sessions(&self) -> String {
        if self.others.is_empty() {
            return String::new();
        }
        let mut text =
            "\nOther sessions, the newest first; `session-invite trace` with their id tells their story:\n"
                .to_owned();
        for other in &self.others {
            let by = words::found_by(other.found_by);
            let _ = writeln!(
                text,
                "{}  {}  group {}  {}  found by {by}",
                time(other.created_at),
                other.id,
                other.group,
                other.status
            );
        }
        if self.has_more_others {
            text += "There are more; --limit lists them.\n";
        }
        text
    }
}

fn head(session: &SessionDetails, by: FoundBy) -> String {
    let rows = [
        ("session", session.id.to_string()),
        ("found by", words::found_by(by).to_owned()),
        ("group", session.group_id.to_string()),
        ("status", session.status.as_str().to_owned()),
        ("error", shown(session.error_code.as_ref())),
        ("phone", shown(session.phone.as_ref())),
        ("key", shown(session.session_key.as_ref())),
        ("message id", shown(session.message_id.as_ref())),
        ("correlation id", shown(session.correlation_id.as_ref())),
        ("provider's id", shown(session.provider_message_id.as_ref())),
    ];
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<15} {value}");
        text
    })
}
