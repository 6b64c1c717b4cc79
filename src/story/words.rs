//! The story's words.

use crate::{
    output::plain,
    sessions::{
        Status, TextState,
        lookup::SessionDetails,
        steps::{ClosedBy, KEPT, KeptStep, LookFinding, ReportSource, ResumeCause, Step, WaitCause},
        trace::{Circumstances, EVENTS_LOOKED_AT, FoundBy, WaitingEvent},
    },
};
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

/// What a story is shown from, beside the session's row as `sessions show` shows it.
#[derive(Debug)]
pub(crate) struct Sources {
    /// `None` if the row was deleted meanwhile.
    pub(crate) circumstances: Option<Circumstances>,
    pub(crate) steps: Vec<KeptStep>,
    pub(crate) events: Vec<WaitingEvent>,
}

/// What stands in a correlation id for each control character that its sender wrote.
pub(super) const CONTROL: &str = "\u{fffd}";

const TO_THE_MILLISECOND: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// RFC 3339 in UTC, to the millisecond.
pub(crate) fn time(at: OffsetDateTime) -> String {
    let utc = at.checked_to_offset(UtcOffset::UTC);
    utc.and_then(|at| at.format(TO_THE_MILLISECOND).ok()).unwrap_or_default()
}

/// The text, safe for a terminal, or a dash.
pub(crate) fn shown(text: Option<impl AsRef<str>>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| plain(text.as_ref()))
}

pub(crate) fn found_by(by: FoundBy) -> &'static str {
    match by {
        FoundBy::SessionId => "its id",
        FoundBy::MessageId => "its message id",
        FoundBy::Key => "its key",
        FoundBy::Phone => "its phone number",
        FoundBy::ProviderId => "the provider's id of its text",
        FoundBy::CorrelationId => "its correlation id",
        FoundBy::FormerKey => "the key that it had",
    }
}

/// The code and the message of a session's error.
pub(crate) fn cause(session: &SessionDetails) -> String {
    let message = session.error.as_ref().and_then(|error| error["message"].as_str());
    let code = shown(session.error_code.as_ref());
    let provider = session.error.as_ref().and_then(|error| error["providerCode"].as_i64());
    let provider = provider.map_or_else(String::new, |code| format!(", the provider's code {code}"));
    match message {
        Some(message) => format!("{code} ({}{provider})", plain(message)),
        None => format!("{code}{provider}"),
    }
}

pub(crate) fn undelivered(code: Option<&str>) -> String {
    let code = code.map_or_else(String::new, |code| format!(", with the code {}", plain(code)));
    format!("The provider reported that the text will not arrive{code}.")
}

/// What a step says.
pub(crate) fn step(step: &Step) -> String {
    match step {
        Step::TryWaits { attempt, of, why, status, provider_code, next_in } => {
            try_waits(*attempt, *of, *why, &answer(*status, *provider_code), *next_in)
        }
        Step::TryRefused { attempt, code, provider_code } => {
            let answer = answer(None, *provider_code);
            format!("Try {attempt}: the provider refused the text for good{answer}: {}.", plain(code))
        }
        Step::TryUnknown { attempt, why } => {
            format!("Try {attempt}: the outcome is not known ({}). A text may have gone out.", plain(why))
        }
        Step::TryWithheld { attempt } => {
            format!(
                "Try {attempt}: its time was over before the text could be written, so it was not written."
            )
        }
        Step::Looked { found, sid } => looked(*found, sid.as_deref()),
        Step::Held {} => "The group is paused, so the text waits for `groups resume`.".to_owned(),
        Step::TakenOver { attempt } => format!(
            "A worker took the invite over for try {attempt}: the worker before it had ended, or had lost its claim."
        ),
        Step::Redelivered { status, text_state, repeat } => {
            let what = if *repeat {
                "The same invite was published again"
            } else {
                "The message was delivered again"
            };
            let text =
                text_state.as_ref().map_or_else(String::new, |state| format!(", its text {}", plain(state)));
            format!("{what}, and found the session {}{text}.", plain(status))
        }
        Step::Resumed { after: ResumeCause::Pause } => {
            "The group was resumed, and the invite went on from its row.".to_owned()
        }
        Step::Resumed { after: ResumeCause::LostMessage } => {
            "The broker may have lost the message, so the invite went on from its row.".to_owned()
        }
        Step::Replayed { letter } => format!("An operator replayed the dead letter {}.", plain(letter)),
        Step::Receipt { status, code, sid, by, changed, ours } => {
            let what = receipt(status, *code, sid, *by);
            let effect = match (ours, changed) {
                (true, true) => "",
                (true, false) => " It changed nothing.",
                (false, _) => " The text is not the one that this session had.",
            };
            what + effect
        }
        Step::Closed { code, by, opted_out } => {
            let by = match by {
                ClosedBy::Worker if *opted_out => {
                    "The visitor has opted out of texts, so the worker ended the invite"
                }
                ClosedBy::Worker => "The worker ended the invite without a further try",
                ClosedBy::Sweep => "Its time was over and no message had settled it, so the invite was ended",
            };
            format!("{by}: {}.", plain(code))
        }
    }
}

fn try_waits(attempt: i32, of: Option<u32>, why: WaitCause, answer: &str, next_in: Option<f64>) -> String {
    let why = match why {
        WaitCause::Unreachable => "could not be reached",
        WaitCause::Throttled => "wants fewer requests",
        WaitCause::Account => "refuses the operator's account",
    };
    let next = match (next_in, of) {
        (Some(next), _) => format!("The next try comes in {next:.1} s."),
        (None, Some(of)) if is_last(attempt, of) => "It was the last one (SMS_MAX_ATTEMPTS).".to_owned(),
        (None, _) => "There is no time for a further try.".to_owned(),
    };
    let try_of = try_of(attempt, of);
    format!("{try_of}: the provider {why}{answer}, so it surely has no text. {next}")
}

/// Such as `Try 4 of 5`.
fn try_of(attempt: i32, of: Option<u32>) -> String {
    of.map_or_else(|| format!("Try {attempt}"), |of| format!("Try {attempt} of {of}"))
}

fn is_last(attempt: i32, of: u32) -> bool {
    u32::try_from(attempt).is_ok_and(|attempt| attempt >= of)
}

fn receipt(status: &str, code: Option<i32>, sid: &str, by: ReportSource) -> String {
    let code = code.map_or_else(String::new, |code| format!(", code {code}"));
    let by = match by {
        ReportSource::Receipt => "A receipt of the provider",
        ReportSource::List => "The provider's list, at `reconcile`,",
        ReportSource::LateAnswer => "The answer to a try, after another worker had taken the invite over,",
    };
    format!("{by} says {}{code} of the text {}.", plain(status), plain(sid))
}

fn looked(found: LookFinding, sid: Option<&str>) -> String {
    match found {
        LookFinding::Text => format!("A look at the provider's list found the text {}.", shown(sid)),
        LookFinding::Nothing => "A look at the provider's list did not find the text.".to_owned(),
        LookFinding::OtherTexts => {
            "A look at the provider's list found a text to the number that no session owns. It may be this invite's.".to_owned()
        }
        LookFinding::Unreadable => "The provider's list could not be read. It is looked at again.".to_owned(),
    }
}

/// The answer's status and code, in brackets.
fn answer(status: Option<u16>, code: Option<i64>) -> String {
    match (status, code) {
        (Some(status), Some(code)) => format!(" (HTTP {status}, code {code})"),
        (Some(status), None) => format!(" (HTTP {status})"),
        (None, Some(code)) => format!(" (code {code})"),
        (None, None) => String::new(),
    }
}

/// What comes next, and what is missing from the story.
pub(crate) fn notes(session: &SessionDetails, sources: &Sources) -> Vec<String> {
    let mut notes = next(session, sources);
    let Some(known) = &sources.circumstances else { return notes };
    if known.blanked {
        notes.push(
            "Its number, text, parameters and correlation id were removed: it is older than half a year, or its number was forgotten."
                .to_owned(),
        );
    }
    if session.correlation_id.as_ref().is_some_and(|id| id.contains(CONTROL)) {
        notes.push("U+FFFD in its correlation id stands for a control character that its sender wrote, or for U+FFFD.".to_owned());
    }
    if sources.steps.len() >= KEPT {
        notes.push(format!("Only the first {KEPT} steps were kept."));
    }
    if known.outbox_is_long {
        notes.push(format!(
            "More than {EVENTS_LOOKED_AT} events wait to be published. Only the newest of them were looked at, so some of this \
             session may be missing here."
        ));
    }
    if known.group_enabled.is_none() {
        notes.push(format!("There is no group {} any more.", session.group_id));
    }
    notes
}

fn next(session: &SessionDetails, sources: &Sources) -> Vec<String> {
    let expires = session.expires_at.map_or_else(String::new, |at| format!(" until {}", time(at)));
    match session.status {
        Status::Sending => vec![under_way(session, sources)],
        Status::Sent | Status::Delivered | Status::Undelivered | Status::Unknown => {
            vec![format!("Next: an agent can join it{expires}; then it expires.")]
        }
        Status::Joined => vec!["Next: it ends, by the agent or at the group's --session-max.".to_owned()],
        Status::Expired | Status::Ended | Status::Rejected | Status::Failed => Vec::new(),
    }
}

/// What an invite without an outcome waits for.
fn under_way(session: &SessionDetails, sources: &Sources) -> String {
    let group = session.group_id;
    let known = sources.circumstances.as_ref();
    let lease = session.lease_until.map_or_else(|| "now".to_owned(), time);
    let pause = known.and_then(|known| known.group_paused_at).map(|since| {
        format!(
            " The group is paused since {}; `session-invite groups resume {group}` ends that.",
            time(since)
        )
    });
    let off = known
        .is_some_and(|known| known.group_enabled == Some(false))
        .then(|| format!(" The group is switched off; `session-invite groups enable {group}` ends that."));
    let deadline =
        [known.and_then(|known| known.deadline_at), session.expires_at].into_iter().flatten().min();
    let deadline = deadline.map_or_else(String::new, |at| format!(" It is too old at {}.", time(at)));
    let next_try = next_try(session, &sources.steps);
    let what = match session.text_state {
        Some(TextState::Waiting) if pause.is_some() || off.is_some() => "Next: no try for now.".to_owned(),
        Some(TextState::Waiting) => format!("Next: {next_try} at {lease}."),
        Some(TextState::Unknown) => {
            format!("Next: a look at the provider's list; a further try comes at {lease} at the earliest.")
        }
        _ => format!("Next: the result of a try, which is waited for until {lease}."),
    };
    what + &pause.unwrap_or_default() + &off.unwrap_or_default() + &deadline
}

/// The try that an invite waits for. After the last one it fails, however much time is left.
fn next_try(session: &SessionDetails, steps: &[KeptStep]) -> String {
    let tries = steps.iter().rev().find_map(|kept| match kept.read() {
        Some(Step::TryWaits { of, .. }) => Some(of),
        _ => None,
    });
    let next = session.attempts + 1;
    // After the last try there may be more: one that was withheld is made again.
    match tries.flatten().filter(|of| u32::try_from(next).is_ok_and(|next| next <= *of)) {
        Some(of) if is_last(next, of) => format!("try {next} of {of}, the last one (SMS_MAX_ATTEMPTS),"),
        Some(of) => format!("try {next} of {of}"),
        None => "a try".to_owned(),
    }
}
