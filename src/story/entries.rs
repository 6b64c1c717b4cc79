//! What happened to a session, in order: from the columns of its row, its steps, the outbox and the dead letters.

use super::words::{self, Sources, shown, time};
use crate::{
    dead_letters::InviteLetter,
    masked::debug_shows,
    optouts::{ANY_SENDER, OptOutRow},
    output::plain,
    sessions::{
        Status,
        lookup::SessionDetails,
        steps::{KeptStep, Step},
    },
};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

/// Where an entry comes from. Of the same time, they come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Source {
    /// The beginning of the row.
    Request,
    Step,
    /// What became of the row.
    Row,
    Event,
    DeadLetter,
}

/// One thing that happened.
#[derive(Serialize)]
pub(crate) struct Entry {
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) at: Option<OffsetDateTime>,
    pub(crate) source: Source,
    /// Such as `created`, or the kind of a step.
    pub(crate) kind: String,
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    detail: Value,
}

debug_shows!(Entry { at, source, kind });

impl Entry {
    fn new(at: Option<OffsetDateTime>, source: Source, kind: &str, text: String) -> Self {
        Self { at, source, kind: kind.to_owned(), text, detail: Value::Null }
    }

    /// When it happened, for people.
    pub(crate) fn time(&self) -> String {
        self.at.map_or_else(|| "at an unknown time".to_owned(), time)
    }

    /// How long after `begun` that was.
    pub(crate) fn since(&self, begun: Option<OffsetDateTime>) -> String {
        match (self.at, begun) {
            (Some(at), Some(begun)) => format!("{:+.3} s", (at - begun).as_seconds_f64()),
            _ => String::new(),
        }
    }
}

/// The story, the first entry first.
pub(crate) fn tell(session: &SessionDetails, sources: &Sources, letters: &[InviteLetter]) -> Vec<Entry> {
    let mut story = beginning(session, sources);
    story.extend(sources.steps.iter().map(step));
    story.extend(outcome(session));
    story.extend(sources.events.iter().map(|event| {
        let text = format!(
            "The event session.{} waits in the outbox: the broker has not confirmed it.",
            event.event
        );
        Entry::new(Some(event.at), Source::Event, &event.event, text)
    }));
    story.extend(letters.iter().map(letter));
    sort(&mut story);
    story
}

fn beginning(session: &SessionDetails, sources: &Sources) -> Vec<Entry> {
    let circumstances = sources.circumstances.as_ref();
    let published = circumstances.and_then(|known| known.published_at).map(|at| {
        // It has whole seconds, of a clock that may be ahead.
        let at = at.replace_nanosecond(0).unwrap_or(at).min(session.created_at);
        let waited = (session.created_at - at).whole_seconds();
        let text = match waited {
            ..=1 => "The request was published, by its own timestamp.".to_owned(),
            _ => format!(
                "The request was published, by its own timestamp, and waited about {waited} s for a worker."
            ),
        };
        Entry::new(Some(at), Source::Request, "published", text)
    });
    let by = shown(Some(&session.requested_by));
    let was_held = sources.steps.iter().any(|step| matches!(step.read(), Some(Step::Held {})));
    let attempts = if was_held { 0 } else { session.attempts };
    let created = match (attempts, &session.session_key) {
        (0, None) => format!("The sender {by} was authenticated, and the invite was refused at once."),
        (0, Some(key)) => format!(
            "The sender {by} was authenticated. The session began with the key {key}, and its text had to wait."
        ),
        (_, key) => {
            let key = key.as_ref().map_or_else(String::new, |key| format!(" with the key {key}"));
            format!(
                "The sender {by} was authenticated. The session began{key}, and its text was handed to the provider."
            )
        }
    };
    let created = Entry::new(Some(session.created_at), Source::Request, "created", created);
    let looks = circumstances.filter(|known| known.looks_first).map(|_| {
        let text = "The database had lost rows shortly before, so the provider's list was looked at before the first text.";
        Entry::new(Some(session.created_at), Source::Request, "look_first", text.to_owned())
    });
    published.into_iter().chain([created]).chain(looks).collect()
}

/// What the columns of the row say.
fn outcome(session: &SessionDetails) -> Vec<Entry> {
    let mut story = Vec::new();
    let mut add = |at: Option<OffsetDateTime>, kind: &str, text: String| {
        if at.is_some() {
            story.push(Entry::new(at, Source::Row, kind, text));
        }
    };
    let sid =
        session.provider_message_id.as_ref().map_or_else(String::new, |sid| format!(" as {}", plain(sid)));
    let tries = match session.attempts {
        ..=1 => "at the first try".to_owned(),
        tries => format!("after {tries} tries"),
    };
    // An error stays in the row when a report comes after the reply: the code is then the reply's, and not the provider's.
    let was_refused = session.error.is_some();
    let sent = if was_refused {
        format!(
            "The provider reported that it has the text{sid}. The reply had come before that, and says {}.",
            words::cause(session)
        )
    } else {
        format!("The provider has the text{sid}, {tries}. The reply says sent.")
    };
    add(session.sent_at, "sent", sent);
    let code = session.error_code.as_deref().filter(|_| !was_refused);
    add(session.undelivered_at, "undelivered", words::undelivered(code));
    add(session.delivered_at, "delivered", "The provider reported that the text has arrived.".to_owned());
    add(session.joined_at, "joined", "An agent joined the session.".to_owned());
    let cause = words::cause(session);
    let ended = match session.status {
        Status::Rejected | Status::Failed => {
            format!("The invite is {}: {cause}. There is surely no text.", session.status.as_str())
        }
        Status::Expired if session.error_code.is_some() && session.sent_at.is_none() => {
            format!("The session expired. Its invite was not known to be sent: {cause}.")
        }
        Status::Expired => "The session expired: no agent had joined in time.".to_owned(),
        _ => "The session ended.".to_owned(),
    };
    add(session.ended_at, session.status.as_str(), ended);
    if session.status == Status::Unknown {
        let text = format!("The invite is answered {cause}: a text may have gone out.");
        add(Some(session.updated_at), "unknown", text);
    }
    story
}

fn step(step: &KeptStep) -> Entry {
    let text = step.read().map_or_else(
        || {
            format!(
                "{} (a kind that this release does not know): {}",
                plain(&step.kind),
                plain(&step.detail.to_string())
            )
        },
        |step| words::step(&step),
    );
    Entry { detail: step.detail.clone(), ..Entry::new(Some(step.at), Source::Step, &step.kind, text) }
}

/// The invite's number wants no texts, since when.
pub(crate) fn opt_out(row: &OptOutRow) -> Entry {
    let from = if row.sender == ANY_SENDER { "any sender" } else { &row.sender };
    let by = match row.source.as_str() {
        "provider" => "as the provider reported",
        "command" | "import" => "by an operator's command",
        _ => "by the visitor's own text",
    };
    let text = format!(
        "The number …{} has opted out of texts from {} since then, {by}.",
        row.last_digits,
        plain(from)
    );
    Entry::new(Some(row.created_at), Source::Row, "opt_out", text)
}

/// Brings entries into their order.
pub(crate) fn sort(story: &mut [Entry]) {
    story.sort_by_key(|entry| (entry.at.is_none(), entry.at, entry.source));
}

/// A dead letter.
pub(crate) fn letter(letter: &InviteLetter) -> Entry {
    let row = &letter.row;
    let kind = row.kind.map_or("message", |kind| kind.as_str());
    let (code, reason) = (shown(row.code.as_ref()), shown(row.reason.as_ref()));
    let text = format!(
        "The {kind} was set aside as the dead letter {}: {code}: {reason}. `session-invite dead show {}` shows it, `dead replay` \
         goes on.",
        row.id, row.id
    );
    let detail = serde_json::to_value(row).unwrap_or_default();
    Entry { detail, ..Entry::new(letter.at, Source::DeadLetter, "dead_letter", text) }
}
