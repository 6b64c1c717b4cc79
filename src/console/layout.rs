//! The frame of every page: its head, its navigation, and the headers that bind the browser to them.

use super::{
    access::{ConsoleUser, FORM_TOKEN, LoginKind},
    assets,
    state::Console,
    words,
};
use crate::db::{self, NotRead, StatementError as _};
use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use maud::{DOCTYPE, Markup, html};

/// Nothing but the console's own style, script and forms.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The parts of the console, as its navigation has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Overview,
    Sessions,
    DeadLetters,
    Groups,
    Audit,
    /// Pages that are in no part.
    Other,
}

/// The parts with their names and addresses.
const SECTIONS: [(Section, &str, &str); 5] = [
    (Section::Overview, "Overview", ""),
    (Section::Sessions, "Sessions", "/sessions"),
    (Section::DeadLetters, "Dead letters", "/dead"),
    (Section::Groups, "Groups", "/groups"),
    (Section::Audit, "Audit", "/audit"),
];

/// A page with this title and this content, which begins with headings of the second level.
pub(super) fn page(
    console: &Console,
    user: Option<&ConsoleUser>,
    (section, title): (Section, &str),
    status: StatusCode,
    main: &Markup,
) -> Response {
    let html = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · session-invite" }
                link rel="stylesheet" href=(console.link(assets::style()));
                script src=(console.link(assets::script())) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    p.brand { a href=(console.link("")) { "session-invite" } }
                    @if let Some(user) = user { (navigation(console, section)) (who(console, user)) }
                }
                main #main tabindex="-1" { h1 { (title) } (main) }
                footer { p { "session-invite " (env!("CARGO_PKG_VERSION")) ". All times are in UTC." } }
            }
        }
    };
    let mut response = (status, html.into_string()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

fn navigation(console: &Console, section: Section) -> Markup {
    html! {
        nav aria-label="Console" {
            ul {
                @for (own, name, path) in SECTIONS {
                    li { a href=(console.link(path)) aria-current=[(own == section).then_some("page")] { (name) } }
                }
            }
        }
    }
}

/// The operator's name, and the way out. A login of the proxy is ended at the proxy.
fn who(console: &Console, user: &ConsoleUser) -> Markup {
    html! {
        div.who {
            span { (words::text(&user.name, words::IN_A_TABLE)) }
            @if user.login != LoginKind::Proxy {
                (form(console, user, "/logout", &html! { button.plain type="submit" { "Log out" } }))
            }
        }
    }
}

/// A form that goes to this path of the console, by POST.
pub(super) fn form(console: &Console, user: &ConsoleUser, path: &str, content: &Markup) -> Markup {
    html! {
        form method="post" action=(console.link(path)) {
            input type="hidden" name=(FORM_TOKEN) value=(console.access.form_token(user, path));
            (content)
        }
    }
}

/// A change that a page offers.
#[derive(Debug)]
pub(super) struct Offer<'o> {
    pub(super) section: Section,
    /// The page's title, and what its button says.
    pub(super) titles: (&'o str, &'o str),
    /// Where its form goes, and where the operator came from.
    pub(super) paths: (&'o str, &'o str),
    /// The command for the same, as the audit will have it.
    pub(super) command: &'o str,
}

/// The page before a change: what it will do, and the button that does it.
pub(super) fn confirmation(
    console: &Console,
    user: &ConsoleUser,
    offer: &Offer<'_>,
    what: &Markup,
) -> Response {
    let ((title, button), (path, back)) = (offer.titles, offer.paths);
    let main = html! {
        (what)
        p { "The audit will have it as " code { (offer.command) } ", with your name." }
        (form(console, user, path, &html! {
            p.choice {
                button type="submit" { (button) }
                a href=(console.link(back)) { "Cancel" }
            }
        }))
    };
    page(console, Some(user), (offer.section, title), StatusCode::OK, &main)
}

/// A table that scrolls by itself where the page is narrow. `content` is its head and body.
pub(super) fn table(caption: &str, content: &Markup) -> Markup {
    html! {
        div.table role="region" aria-label=(caption) tabindex="0" {
            table { caption { (caption) } (content) }
        }
    }
}

/// The head of a table.
pub(super) fn columns(names: &[&str]) -> Markup {
    html! { thead { tr { @for name in names { th scope="col" { (name) } } } } }
}

/// The answer to a form whose change was made: the page that shows it, by GET.
pub(super) fn see(console: &Console, path: &str, query: &[(&str, &str)]) -> Response {
    Redirect::to(&console.link_with(path, query)).into_response()
}

/// A page that says why there is no other.
pub(super) fn refused(
    console: &Console,
    user: Option<&ConsoleUser>,
    status: StatusCode,
    title: &str,
    why: &str,
) -> Response {
    page(console, user, (Section::Other, title), status, &html! { p { (why) } })
}

/// A page whose subject could not be read.
pub(super) fn could_not_read(
    console: &Console,
    user: &ConsoleUser,
    (section, title): (Section, &str),
    why: NotRead,
) -> Response {
    let status = match why {
        NotRead::TooSlow | NotRead::Busy => StatusCode::OK,
        NotRead::Away => StatusCode::SERVICE_UNAVAILABLE,
        NotRead::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    };
    page(console, Some(user), (section, title), status, &words::not_read(why))
}

/// The page for a change that the database did not make, or perhaps has made.
pub(super) fn not_changed(
    console: &Console,
    user: &ConsoleUser,
    page: (Section, &str),
    error: &db::Error,
) -> Response {
    tracing::warn!(error = %error.summary(), "a change by the console failed");
    if error.is_transient() {
        perhaps_changed(console, user, page)
    } else {
        could_not_read(console, user, page, NotRead::Failed)
    }
}

/// The page for a change whose result is not known.
pub(super) fn perhaps_changed(
    console: &Console,
    user: &ConsoleUser,
    (section, title): (Section, &str),
) -> Response {
    let text = "The database did not answer in time: the change was made whole, or not at all. The audit shows it if it was \
                made. Making it again does no harm.";
    page(console, Some(user), (section, title), StatusCode::SERVICE_UNAVAILABLE, &html! { p { (text) } })
}

/// The page for an address without a page.
pub(super) fn no_such_page(console: &Console, user: Option<&ConsoleUser>) -> Response {
    let text = "Nothing is at this address of the console. What it was about may be gone by now.";
    refused(console, user, StatusCode::NOT_FOUND, "Not found", text)
}

/// Adds the headers that every answer of the console has.
pub(super) async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer`, browsers would send `Origin: null` with the console's own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // No other site embeds anything of the console, nor holds a handle of its window.
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
