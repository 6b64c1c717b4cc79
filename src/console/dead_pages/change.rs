//! What can be done with a dead letter: a page that says what it would do, and its form.

use super::show::{find, not_found, what};
use crate::{
    console::{
        access::ConsoleUser,
        layout::{self, Offer, Section},
        params::{ChangePath, ConsoleForm, thing_and_verb},
        state::Console,
        words::{IN_A_TABLE, NAME, text},
    },
    dead_letters::{DeadLetterRow, DeskError, LetterAddress, LetterFate, ReplayAction},
};
use axum::{extract::State, http::StatusCode, response::Response};
use maud::{Markup, html};
use std::sync::Arc;
use strum::{Display, EnumString, IntoStaticStr};

/// As the command and the address write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
enum LetterVerb {
    Replay,
    Drop,
}

impl LetterVerb {
    const fn title(self) -> &'static str {
        match self {
            Self::Replay => "Replay this dead letter",
            Self::Drop => "Drop this dead letter",
        }
    }
}

/// The letter and the verb of an address.
fn target(path: ChangePath) -> Option<(LetterAddress, LetterVerb)> {
    thing_and_verb(path, |letter| letter.parse().ok())
}

/// `GET /dead/{letter}/{verb}`: says what it would do.
pub(in crate::console) async fn confirm(
    State(console): State<Arc<Console>>,
    user: ConsoleUser,
    path: ChangePath,
) -> Response {
    let Some((address, verb)) = target(path) else { return layout::no_such_page(&console, Some(&user)) };
    let shown = match find(&console, &user, &address).await {
        Ok(shown) => shown,
        Err(page) => return *page,
    };
    let page = (Section::DeadLetters, verb.title());
    let letter = &shown.view.entry;
    let what = html! {
        @match verb {
            LetterVerb::Replay => p { (what(&shown.plan)) " Mend what stopped it first." },
            LetterVerb::Drop => p {
                "It is deleted, with its copies, and cannot be restored. An invite that was authenticated is still in the sessions."
            },
        }
        (summary(letter))
    };
    let back = format!("/dead/{address}");
    if verb == LetterVerb::Replay && shown.plan.as_ref().is_ok_and(|plan| plan.action == ReplayAction::Stay) {
        let main = html! { (what) p { a.button href=(console.link(&back)) { "Back" } } };
        return layout::page(&console, Some(&user), page, StatusCode::OK, &main);
    }
    let (path, command) = (format!("{back}/{verb}"), format!("dead {verb} {}", letter.id));
    let offer = Offer {
        section: Section::DeadLetters,
        titles: (verb.title(), verb.title()),
        paths: (&path, &back),
        command: &command,
    };
    layout::confirmation(&console, &user, &offer, &what)
}

fn summary(letter: &DeadLetterRow) -> Markup {
    let shown = |value: &Option<String>| text(value.as_deref().unwrap_or("–"), IN_A_TABLE);
    html! {
        dl {
            dt { "Letter" } dd { (letter.id) }
            dt { "Reason" } dd { (shown(&letter.reason)) }
            dt { "Group" } dd { (letter.group.map_or_else(|| "–".to_owned(), |group| group.to_string())) }
            dt { "Message id" } dd { (text(letter.message_id.as_deref().unwrap_or("–"), NAME)) }
        }
    }
}

/// `POST /dead/{letter}/{verb}`: does it.
pub(in crate::console) async fn change(
    State(console): State<Arc<Console>>,
    path: ChangePath,
    form: ConsoleForm,
) -> Response {
    let user = &form.user;
    let Some((address, verb)) = target(path) else { return layout::no_such_page(&console, Some(user)) };
    let operator = |id: &str| {
        let action = format!("dead {verb}");
        console.operator(user, &action, &format!("{action} {id}"))
    };
    let done = match verb {
        LetterVerb::Replay => console.letters.replay(&address, operator).await,
        LetterVerb::Drop => console.letters.discard(&address, operator).await,
    };
    match done {
        Ok(LetterFate::Done) => layout::see(&console, "/dead", &[("done", verb.into())]),
        Err(DeskError::NotFound(miss)) => not_found(&console, user, (&address, miss)),
        Ok(LetterFate::Stays(why)) => stays(&console, user, &why),
        Err(error) => {
            tracing::warn!(error = %error, "a change of a dead letter by the console failed");
            not_done(&console, user, &error)
        }
    }
}

/// The page for a change that was not made, or perhaps was.
fn not_done(console: &Console, user: &ConsoleUser, error: &DeskError) -> Response {
    let title = match error {
        DeskError::Busy | DeskError::Slow | DeskError::NotBegun(_) => "Nothing was done",
        _ => "Look whether it was done",
    };
    let main = html! {
        p.notice.bad role="alert" { "Why: " (text(&error.to_string(), IN_A_TABLE * 2)) "." }
        p.actions {
            a.button.plain href=(console.link("/dead")) { "The dead letters" }
            a.button.plain href=(console.link_with("/audit", &[("action", "dead")])) { "The audit of them" }
        }
    };
    layout::page(console, Some(user), (Section::DeadLetters, title), StatusCode::SERVICE_UNAVAILABLE, &main)
}

fn stays(console: &Console, user: &ConsoleUser, why: &str) -> Response {
    let why = format!("It stays where it is: {}.", text(why, IN_A_TABLE * 2));
    layout::refused(console, Some(user), StatusCode::CONFLICT, "It was not replayed", &why)
}
