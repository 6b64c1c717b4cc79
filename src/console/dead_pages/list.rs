//! The first dead letters.

use crate::{
    console::{
        access::ConsoleUser,
        layout::{self, Section, columns, table},
        params::FormValues,
        state::Console,
        words::{IN_A_TABLE, NAME, number, span, text},
    },
    dead_letters::{DeadLetterRow, DeskError, LetterPage},
    queue::dead::LetterKind,
};
use axum::{extract::State, http::StatusCode, response::Response};
use maud::{Markup, html};
use std::sync::Arc;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

const PAGE: (Section, &str) = (Section::DeadLetters, "Dead letters");

/// `GET /dead`.
pub(in crate::console) async fn list(
    State(console): State<Arc<Console>>,
    user: ConsoleUser,
    query: FormValues,
) -> Response {
    let read = console.letters.list().await;
    let status = if read.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let main = html! {
        (flash(&query))
        p { "Messages that a worker could not settle. Nothing is lost while they are here. See why one was set aside and mend the \
             cause; then replay it, or drop it." }
        @match &read { Ok(page) => (letters(&console, page)), Err(error) => (not_read(error)) }
    };
    layout::page(&console, Some(&user), PAGE, status, &main)
}

/// Why there is no list.
pub(super) fn not_read(error: &DeskError) -> Markup {
    html! { p.notice.bad role="alert" { "Not read: " (text(&error.to_string(), IN_A_TABLE * 2)) "." } }
}

/// What was done, after the redirect. Only these words are shown, whatever the address says.
fn flash(query: &FormValues) -> Markup {
    html! {
        @match query.get("done") {
            Some("replay") => p.notice.good role="status" {
                "The letter was replayed: it is published again, and taken out of here. What becomes of it is in its story, which \
                 Sessions finds by its message id. If the request is refused, there is no session, and its sender has the reply."
            },
            Some("drop") => p.notice.good role="status" { "The letter was dropped: it is deleted." },
            _ => {}
        }
    }
}

fn letters(console: &Console, page: &LetterPage) -> Markup {
    let LetterPage { letters, waiting, is_incomplete } = page;
    let waiting = (*waiting as usize).max(letters.len());
    if waiting == 0 {
        return html! { p.notice.good { "There are none, or others hold them at this moment." } };
    }
    let now = OffsetDateTime::now_utc();
    html! {
        p {
            @if letters.len() == waiting { strong { "All " (number(waiting)) } " of the queue." }
            @else { strong { "The first " (number(letters.len())) " of " (number(waiting)) } " in the queue." }
            @if letters.len() < waiting { " " code { "session-invite dead summary" } " counts them by their cause, and "
                code { "dead replay" } " and " code { "dead drop" } " take many at once." }
        }
        @if *is_incomplete { p.notice role="status" { "Another command holds some of them, or the broker was slow: look again in a moment." } }
        (table("The letters at the front of the queue", &html! {
            (columns(&["Letter", "Kind", "Group", "Code", "Reason", "Set aside", "Tries", "Phone", "Message id", "What to do"]))
            tbody { @for letter in letters { (row(console, letter, now)) } }
        }))
    }
}

fn row(console: &Console, letter: &DeadLetterRow, now: OffsetDateTime) -> Markup {
    let shown = |value: &Option<String>, most| text(value.as_deref().unwrap_or("–"), most);
    let path = format!("/dead/{}", letter.address);
    html! {
        tr {
            th scope="row" { a href=(console.link(&path)) { (letter.id) } }
            td { (letter.kind.map_or("–", LetterKind::as_str)) }
            td { @match letter.group {
                Some(group) => a href=(console.link(&format!("/groups/{group}"))) { (group) },
                None => "–",
            } }
            td { (shown(&letter.code, NAME)) }
            td.long { (shown(&letter.reason, IN_A_TABLE)) }
            td { (age(letter, now)) }
            td.number { (letter.attempts.map_or_else(|| "–".to_owned(), number)) }
            td { (shown(&letter.phone, NAME)) }
            td { (shown(&letter.message_id, NAME)) }
            td {
                a href=(console.link(&format!("{path}/replay"))) { "Replay…" } " "
                a href=(console.link(&format!("{path}/drop"))) { "Drop…" }
            }
        }
    }
}

/// How long ago it was set aside.
fn age(letter: &DeadLetterRow, now: OffsetDateTime) -> String {
    let at = letter
        .last_at
        .as_deref()
        .and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok()?.checked_to_offset(UtcOffset::UTC));
    at.map_or_else(|| "–".to_owned(), |at| format!("{} ago", span((now - at).as_seconds_f64())))
}
