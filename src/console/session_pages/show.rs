//! One session: what happened, in order, and its fields.

use crate::{
    console::{
        access::ConsoleUser,
        layout::{self, Section, columns, table},
        state::Console,
        words::{IN_A_TABLE, IN_FULL, NAME, number, text},
    },
    dead_letters::{DeskError, InviteLetters, LettersOf},
    sessions::lookup::{self, SessionDetails},
    story::{self, Entry, Sources},
};
use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};
use std::sync::Arc;
use uuid::Uuid;

/// Entries of a story that are shown, and characters of one.
const ENTRIES: usize = 100;
const ENTRY_CHARS: usize = 240;

/// `GET /sessions/{id}`.
pub(in crate::console) async fn show(
    State(console): State<Arc<Console>>,
    user: ConsoleUser,
    id: Result<Path<Uuid>, PathRejection>,
) -> Response {
    let Ok(Path(id)) = id else { return layout::no_such_page(&console, Some(&user)) };
    let read = console.read(move |db| {
        Box::pin(async move {
            let Some(session) = lookup::show(&mut *db, id).await? else { return Ok(None) };
            Ok(Some((story::sources(db, id).await?, session)))
        })
    });
    let (sources, session) = match read.await {
        Ok(Some(found)) => found,
        Ok(None) => return layout::no_such_page(&console, Some(&user)),
        Err(why) => return layout::could_not_read(&console, &user, (Section::Sessions, "Session"), why),
    };
    let letters = console.letters.of_invite(&LettersOf::session(&session)).await;
    let main = html! {
        (head(&console, &session))
        h2 { "What happened" }
        (story_of(&session, &sources, &letters))
        h2 { "Its dead letters" }
        (letters_of(&console, &letters))
        h2 { "What is stored" }
        dl { @for (name, value) in story::fields(&session) { dt { (name) } dd { (text(&value, IN_FULL)) } } }
    };
    layout::page(&console, Some(&user), (Section::Sessions, &format!("Session {id}")), StatusCode::OK, &main)
}

fn head(console: &Console, session: &SessionDetails) -> Markup {
    html! {
        p {
            "An invite of " a href=(console.link(&format!("/groups/{}", session.group_id))) { "group " (session.group_id) }
            ", " strong { (session.status.as_str()) }
            @if let Some(code) = &session.error_code { " with the code " strong { (text(code, NAME)) } }
            "."
        }
    }
}

fn story_of(
    session: &SessionDetails,
    sources: &Sources,
    letters: &Result<InviteLetters, DeskError>,
) -> Markup {
    let found = letters.as_ref().map_or(&[][..], |letters| &letters.found);
    let entries = story::tell(session, sources, found);
    html! {
        (table("The story of the invite", &html! {
            (columns(&["When", "After", "What"]))
            tbody { @for entry in entries.iter().take(ENTRIES) { (row(entry, session)) } }
        }))
        @if entries.len() > ENTRIES {
            p { (number(entries.len() - ENTRIES)) " more; " code { "session-invite trace" } " has all." }
        }
        @for note in story::words::notes(session, sources) { p { (text(&note, IN_FULL)) } }
    }
}

fn row(entry: &Entry, session: &SessionDetails) -> Markup {
    html! {
        tr {
            th.when scope="row" { (entry.time()) }
            td.number { (entry.since(Some(session.created_at))) }
            td.long { (text(&entry.text, ENTRY_CHARS)) }
        }
    }
}

/// The letters with their buttons, and whether there may be more.
fn letters_of(console: &Console, letters: &Result<InviteLetters, DeskError>) -> Markup {
    let letters = match letters {
        Ok(letters) => letters,
        Err(error) => {
            return html! { p.notice role="status" { "Not read: " (text(&error.to_string(), IN_A_TABLE)) "." } };
        }
    };
    html! {
        @for letter in &letters.found {
            p {
                a href=(console.link(&format!("/dead/{}", letter.row.address))) { "Dead letter " (letter.row.id) }
                ": " (text(letter.row.reason.as_deref().unwrap_or("no reason"), IN_A_TABLE)) " "
                a href=(console.link(&format!("/dead/{}/replay", letter.row.address))) { "Replay…" } " "
                a href=(console.link(&format!("/dead/{}/drop", letter.row.address))) { "Drop…" }
            }
        }
        @if letters.found.is_empty() { p { "None was found." } }
        @if let Some(why) = &letters.incomplete { p { "There may be more: " (text(why, IN_A_TABLE)) "." } }
        @if letters.unread > 0 {
            p {
                (number(letters.unread)) " dead letters are further back in the queue, and were not looked at; "
                code { "session-invite trace" } " looks at 10,000."
            }
        }
    }
}
