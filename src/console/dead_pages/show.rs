//! One dead letter, with secrets masked, and what its replay would do.

use super::list::not_read;
use crate::{
    console::{
        access::ConsoleUser,
        layout::{self, Section},
        state::Console,
        words::{IN_A_TABLE, NAME, number, text},
    },
    db::NotRead,
    dead_letters::{DeskError, LetterAddress, LetterMiss, LetterReplay, ShownLetter},
    queue::dead::MAX_READ,
};
use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};
use std::sync::Arc;

/// Properties and headers that are shown, and lines of the body.
const LINES: usize = 60;
const BODY_LINES: usize = 150;

/// `GET /dead/{letter}`.
pub(in crate::console) async fn show(
    State(console): State<Arc<Console>>,
    user: ConsoleUser,
    letter: Result<Path<String>, PathRejection>,
) -> Response {
    let Some(address) = letter.ok().and_then(|Path(letter)| letter.parse().ok()) else {
        return layout::no_such_page(&console, Some(&user));
    };
    let ShownLetter { view, plan } = match find(&console, &user, &address).await {
        Ok(shown) => shown,
        Err(page) => return *page,
    };
    let path = format!("/dead/{address}");
    let main = html! {
        p { strong { (text(view.entry.reason.as_deref().unwrap_or("No worker gave a reason."), IN_A_TABLE * 4)) } }
        p { (what(&plan)) }
        p.actions {
            a.button.plain href=(console.link(&format!("{path}/replay"))) { "Replay…" }
            a.button.plain href=(console.link(&format!("{path}/drop"))) { "Drop…" }
            @if let Some(id) = &view.entry.message_id {
                a.button.plain href=(console.link_with("/sessions", &[("id", id)])) { "Its session" }
            }
        }
        h2 { "The message" }
        (lines(&view.lines()))
        @if let Some(body) = &view.body {
            h2 { "Its body, with secrets masked" }
            (body_of(body))
        }
        @if view.is_too_large {
            p { "No page shows a body that is larger than any request. This prints it, with secrets masked, if it is JSON: "
                (command_to_show(&address)) }
        }
    };
    let title = format!("Dead letter {}", view.entry.id);
    layout::page(&console, Some(&user), (Section::DeadLetters, &title), StatusCode::OK, &main)
}

/// The letter, or the page that says why there is none.
pub(super) async fn find(
    console: &Console,
    user: &ConsoleUser,
    address: &LetterAddress,
) -> Result<ShownLetter, Box<Response>> {
    let page = (Section::DeadLetters, "Dead letter");
    let Ok(services) = console.gateway.services() else {
        return Err(Box::new(layout::could_not_read(console, user, page, NotRead::Away)));
    };
    console.letters.show(&services.pool, address).await.map_err(|error| {
        Box::new(match error {
            DeskError::NotFound(miss) => not_found(console, user, (address, miss)),
            error => failed(console, user, &error),
        })
    })
}

/// The command that shows the letter whole, and looks for it further back.
fn command_to_show(address: &LetterAddress) -> Markup {
    html! { code { "session-invite dead show " (address.id()) } }
}

/// The page for a letter that was not found, as far as it was looked for.
pub(super) fn not_found(
    console: &Console,
    user: &ConsoleUser,
    (address, LetterMiss { read, waiting }): (&LetterAddress, LetterMiss),
) -> Response {
    let title = if read < waiting { "It was not found" } else { "It is not there any more" };
    let main = html! {
        @if read < waiting {
            p { "It is not among the first " (number(read)) " of " (number(waiting)) " dead letters, and nothing was done. No page \
                 looks further. Somebody has replayed or dropped it, or it is further back: RabbitMQ lets no message be read more \
                 than 20 times, and a copy at the queue's end replaces one that was read often." }
            p { "This looks for it among the first " (number(MAX_READ)) ": " (command_to_show(address)) }
        } @else {
            p { "It is none of the dead letters that are there, and nothing was done: somebody has replayed or dropped it. Or another \
                 command reads it at this moment." }
        }
        p { a.button href=(console.link("/dead")) { "The dead letters" } }
    };
    layout::page(console, Some(user), (Section::DeadLetters, title), StatusCode::NOT_FOUND, &main)
}

/// The page for a letter that cannot be worked on.
pub(super) fn failed(console: &Console, user: &ConsoleUser, error: &DeskError) -> Response {
    let page = (Section::DeadLetters, "The dead letter could not be read");
    layout::page(console, Some(user), page, StatusCode::SERVICE_UNAVAILABLE, &not_read(error))
}

/// What the replay would do, in words.
pub(super) fn what(plan: &Result<LetterReplay, DeskError>) -> Markup {
    html! {
        @match plan {
            Ok(LetterReplay { why: Some(why), .. }) => { "It cannot be replayed: " (text(why, IN_A_TABLE * 2)) "." },
            Ok(LetterReplay { to, session_id, .. }) => {
                "Its replay publishes it again to the queue " code { (text(to.as_deref().unwrap_or("–"), IN_A_TABLE)) }
                @match session_id {
                    Some(id) => { ", without its credential: the invite goes on from its session " code { (id) } "." },
                    None => ".",
                }
            },
            Err(error) => { "What its replay would do is not known: " (text(&error.to_string(), IN_A_TABLE * 2)) "." },
        }
    }
}

fn lines(lines: &[(String, String)]) -> Markup {
    html! {
        dl {
            @for (name, value) in lines.iter().take(LINES) { dt { (text(name, NAME)) } dd { (text(value, IN_A_TABLE)) } }
        }
        @if lines.len() > LINES { p { (number(lines.len() - LINES)) " more headers; " code { "session-invite dead show" } " has all." } }
    }
}

fn body_of(body: &serde_json::Value) -> Markup {
    let pretty = serde_json::to_string_pretty(body).unwrap_or_default();
    let count = pretty.lines().count();
    html! {
        pre tabindex="0" { @for line in pretty.lines().take(BODY_LINES) { (text(line, IN_A_TABLE)) "\n" } }
        @if count > BODY_LINES { p { (number(count - BODY_LINES)) " more lines; " code { "session-invite dead show" } " has all." } }
    }
}
