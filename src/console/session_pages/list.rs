//! The list of sessions, and the search in it.

use super::{
    reading::{self, FoundSessions, ListedSession, SearchRest},
    search::{FIELDS, Search},
};
use crate::{
    console::{
        access::ConsoleUser,
        layout::{self, Section, columns, table},
        params::FormValues,
        state::Console,
        words::{self, IN_FULL, NAME, moment, text},
    },
    db::NotRead,
    sessions::Status,
    story::words::found_by,
};
use axum::{extract::State, http::StatusCode, response::Response};
use maud::{Markup, html};
use std::sync::Arc;
use strum::VariantNames;
use time::OffsetDateTime;
use uuid::Uuid;

const PAGE: (Section, &str) = (Section::Sessions, "Sessions");
/// Times that make a search short.
const NARROWER: [(&str, &str); 2] = [("1h", "The last hour"), ("1d", "The last day")];

/// What the page says of a search that has found nothing.
struct SearchScope {
    /// Whether it was for an id.
    id: bool,
    since: Option<OffsetDateTime>,
}

/// `GET /sessions`, with the fields of the search and `before`.
pub(in crate::console) async fn list(
    State(console): State<Arc<Console>>,
    user: ConsoleUser,
    query: FormValues,
) -> Response {
    let content = match Search::read(&query, OffsetDateTime::now_utc()) {
        Ok(search) => found(&console, &query, search).await,
        Err(why) => html! { p.notice.bad role="alert" { (text(&why, words::IN_A_TABLE)) } },
    };
    let main = html! { (form(&console, &query)) (content) };
    layout::page(&console, Some(&user), PAGE, StatusCode::OK, &main)
}

async fn found(console: &Console, query: &FormValues, search: Search) -> Markup {
    let looks_for = SearchScope { id: search.id.is_some(), since: search.filter.since };
    let FoundSessions { rows, rest } = match reading::read(console, search).await {
        Ok(found) => found,
        Err(why) => return not_found(console, query, why),
    };
    html! {
        (rows_of(console, &rows))
        @match rest {
            SearchRest::Nothing => @if rows.is_empty() { (nothing(&looks_for)) },
            SearchRest::More { before } => p {
                a.button href=(link(console, query, ("before", &before.to_string()))) { "Older sessions" }
            },
            SearchRest::Unread { before, since } => (unread(console, query, !rows.is_empty(), (before, since))),
        }
    }
}

fn form(console: &Console, query: &FormValues) -> Markup {
    let field = |name: &str, label: &str, size: usize, hint: Option<&str>| {
        html! {
            div {
                label for=(name) { (label) }
                input id=(name) name=(name) size=(size) value=[query.get(name).map(|value| text(value, IN_FULL))] placeholder=[hint] autocomplete="off";
            }
        }
    };
    let chosen = query.get("status");
    html! {
        form method="get" action=(console.link("/sessions")) role="search" {
            div.row {
                (field("id", "Session, message, correlation or provider's id, key, or phone number", 36, None))
                (field("group", "Group", 8, None))
            }
            div.row {
                div {
                    label for="status" { "Status" }
                    select #status name="status" {
                        option value="" { "any" }
                        @for status in Status::VARIANTS {
                            option value=(status) selected[chosen == Some(*status)] { (status) }
                        }
                    }
                }
                (field("code", "Code", 16, None))
                (field("since", "Since", 12, Some("2h")))
                (field("until", "Until", 12, Some("1h")))
                button type="submit" { "Search" }
            }
            p.hint {
                "A time is how long ago, such as 2h or 7d, or RFC 3339. A number without a country code is read as one of the \
                 United States. With an id that is no phone number, status, code and until do not count."
            }
        }
    }
}

fn rows_of(console: &Console, rows: &[ListedSession]) -> Markup {
    if rows.is_empty() {
        return html! {};
    }
    let has_ids = rows.iter().any(|row| row.by.is_some());
    table(
        "The newest sessions first",
        &html! {
            @if has_ids { (columns(&["Created", "Group", "Status", "Code", "Phone", "Key", "Requested by", "Found by"])) }
            @else { (columns(&["Created", "Group", "Status", "Code", "Phone", "Key", "Requested by"])) }
            tbody { @for row in rows { (row_of(console, row, has_ids)) } }
        },
    )
}

fn row_of(console: &Console, ListedSession { session, by }: &ListedSession, has_ids: bool) -> Markup {
    let shown = |value: &Option<String>| text(value.as_deref().unwrap_or("–"), NAME);
    html! {
        tr {
            th scope="row" {
                a href=(console.link(&format!("/sessions/{}", session.id))) { (moment(session.created_at)) }
            }
            td { a href=(console.link(&format!("/groups/{}", session.group_id))) { (session.group_id) } }
            td { (session.status.as_str()) }
            td { (shown(&session.error_code)) }
            td { (shown(&session.phone)) }
            td { (shown(&session.session_key)) }
            td { (text(&session.requested_by, NAME)) }
            @if has_ids { td { (by.map_or("its phone number", found_by)) } }
        }
    }
}

fn nothing(looked: &SearchScope) -> Markup {
    html! {
        p { "No session was found." }
        @if looked.id {
            p {
                "Looked for: a session's id, a message id and a key that is held, at any time; and "
                @match looked.since { Some(since) => { "since " (moment(since)) }, None => "as far back as there are sessions" }
                " a provider's id, a correlation id and a key that was released. An invite that was refused before its sender \
                 was authenticated leaves no session."
            }
        }
    }
}

/// How far the search came, and the way on.
fn unread(
    console: &Console,
    query: &FormValues,
    has_rows: bool,
    (before, since): (Uuid, OffsetDateTime),
) -> Markup {
    html! {
        p.notice role="status" {
            @if has_rows { "No more were found" } @else { "No session was found" }
            " among those since " (moment(since)) ". Older ones were not read: a page reads for 200 ms at most, so that invites \
             have the database."
        }
        p.actions {
            a.button href=(link(console, query, ("before", &before.to_string()))) { "Look further back" }
        }
    }
}

/// Why nothing is shown, and how to look for less.
fn not_found(console: &Console, query: &FormValues, why: NotRead) -> Markup {
    html! {
        @if why == NotRead::TooSlow {
            p.notice role="status" {
                "Not found within 200 ms: the database is slow at this moment, or somebody holds a lock. The page gives up \
                 then, so that invites have the database. A shorter time, an id or a phone number finds faster; "
                code { "session-invite sessions list" } " and " code { "session-invite trace" } " may read for 30 s."
            }
            p.actions {
                @for (since, name) in NARROWER {
                    a.button.plain href=(link(console, query, ("since", since))) { (name) }
                }
            }
        } @else { (words::not_read(why)) }
    }
}

/// The same search with another value.
fn link(console: &Console, query: &FormValues, (name, value): (&str, &str)) -> String {
    let kept = FIELDS.into_iter().filter(|field| *field != name);
    let mut pairs: Vec<_> = kept.filter_map(|field| Some((field, query.get(field)?))).collect();
    pairs.push((name, value));
    console.link_with("/sessions", &pairs)
}
