//! The page to log in.

use super::{
    access::LONGEST_NAME,
    layout::{self, Section},
    state::Console,
};
use axum::{
    http::{HeaderValue, Method, StatusCode, header, request::Parts, uri::PathAndQuery},
    response::Response,
};
use maud::{Markup, html};

/// The page of the login, for a page that needs one. It leads back there.
pub(super) fn first(console: &Console, parts: &Parts) -> Response {
    let is_page = matches!(parts.method, Method::GET | Method::HEAD);
    let next = parts.uri.path_and_query().filter(|_| is_page).map(PathAndQuery::as_str);
    show(console, StatusCode::UNAUTHORIZED, next.unwrap_or("/"), None)
}

/// The page, which leads to `next` once somebody has logged in.
pub(super) fn show(console: &Console, status: StatusCode, next: &str, problem: Option<&str>) -> Response {
    let main = html! {
        @if let Some(problem) = problem { p.notice.bad role="alert" { (problem) } }
        @if console.access.has_token() {
            (token_form(console, next))
        } @else {
            p {
                "The proxy before this gateway has to name you, in the header of " code { "CONSOLE_USER_HEADER" }
                ", and to be one of " code { "TRUSTED_PROXIES" } ". It did not. Open the console by the proxy's address."
            }
        }
    };
    let mut response = layout::page(console, None, (Section::Other, "Log in"), status, &main);
    if status == StatusCode::UNAUTHORIZED {
        // RFC 9110 wants a scheme; browsers ask for nothing with one that they do not know.
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Form"));
    }
    response
}

fn token_form(console: &Console, next: &str) -> Markup {
    html! {
        form.stacked method="post" action=(console.link("/login")) {
            input type="hidden" name="next" value=(next);
            label for="name" { "Your name" }
            input #name name="name" autocomplete="name" maxlength=(LONGEST_NAME) required aria-describedby="name-hint";
            p.hint #name-hint { "The audit shows it beside what you change." }
            label for="token" { "Token" }
            input #token name="token" type="password" autocomplete="current-password" required
                aria-describedby="token-hint";
            p.hint #token-hint {
                "The value of CONSOLE_TOKEN at the gateway. A login lasts for 12 hours. Logging out ends it at this gateway; \
                 another token ends all logins."
            }
            p { button type="submit" { "Log in" } }
        }
    }
}
