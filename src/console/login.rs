//! Logging in with the token, and out.

use super::{
    access::person,
    layout,
    login_page::show,
    params::{ConsoleForm, FormValues, LoginForm},
    state::Console,
};
use crate::gateway::ClientAddress;
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use std::sync::Arc;
use url::Url;

/// Bytes of the address that a login leads back to, at most.
const LONGEST_NEXT: usize = 2_000;

/// `GET /login`.
pub(super) async fn page(State(console): State<Arc<Console>>, query: FormValues) -> Response {
    show(&console, StatusCode::OK, query.get("next").unwrap_or("/"), None)
}

/// `POST /login`.
pub(super) async fn log_in(
    State(console): State<Arc<Console>>,
    ClientAddress(address): ClientAddress,
    LoginForm(fields): LoginForm,
) -> Response {
    let next = fields.get("next").unwrap_or("/");
    let Some(name) = fields.get("name").and_then(person) else {
        let text =
            "Please give your name, with 1 to 64 characters: the audit shows it beside what you change.";
        return show(&console, StatusCode::BAD_REQUEST, next, Some(text));
    };
    // Counted before the comparison, so that many tokens at once are not more than the limit.
    if let Err(after) = console.logins.count(address) {
        let text = "Too many wrong tokens came from your address. Please wait some minutes.";
        let mut response = show(&console, StatusCode::TOO_MANY_REQUESTS, next, Some(text));
        response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().max(1).into());
        return response;
    }
    if !fields.get("token").is_some_and(|token| console.access.is_token(token)) {
        tracing::warn!(%address, "a wrong token for the console");
        let text = "That is not the token. It is the value of CONSOLE_TOKEN at the gateway.";
        return show(&console, StatusCode::UNAUTHORIZED, next, Some(text));
    }
    console.logins.uncount(address);
    let Some(cookie) = console.access.cookie(&name) else {
        return show(&console, StatusCode::BAD_REQUEST, next, Some("Please give another name."));
    };
    tracing::info!(%address, name, "an operator logged in to the console");
    redirect(&console, if is_address_of_console(next) { next.trim_end_matches('/') } else { "" }, cookie)
}

/// Whether a browser that is sent to the console and this comes to exactly this path of the console.
fn is_address_of_console(next: &str) -> bool {
    let is_written_plainly =
        next.starts_with('/') && next.len() <= LONGEST_NEXT && next.bytes().all(|b| b.is_ascii_graphic());
    let path = ["/console", next.split('?').next().unwrap_or_default()].concat();
    // As browsers resolve it: they drop `..`, also as `%2e%2e`, and take `\` for `/`.
    let resolved = Url::parse("http://console.invalid").and_then(|base| base.join(&path));
    is_written_plainly && !path.contains("//") && resolved.is_ok_and(|url| url.path() == path)
}

/// `POST /logout`.
pub(super) async fn log_out(State(console): State<Arc<Console>>, form: ConsoleForm) -> Response {
    console.access.end_login(&form.user);
    match console.access.no_cookie() {
        Some(cookie) => redirect(&console, "/login", cookie),
        None => layout::no_such_page(&console, None),
    }
}

fn redirect(console: &Console, path: &str, cookie: HeaderValue) -> Response {
    let mut response = Redirect::to(&console.link(path)).into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}
