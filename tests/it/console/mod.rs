//! The operators' console, as a browser without a script uses it.

mod access;
mod dead;
mod pages;
mod sessions;
mod sizes;

use crate::support::{Answer, Gateway, World, send, until};

/// The token of every console here.
pub const TOKEN: &str = "the token of the tests' console";
/// No page is larger.
pub const LARGEST_PAGE: usize = 100 * 1024;

/// What a page says whose statement took longer than a page may take.
const TOO_SLOW: [&str; 2] = ["did not answer within 200 ms", "Not found within 200 ms"];

/// Texts that would be markup, or would change how others read.
pub const HOSTILE: [&str; 7] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onclick='alert(1)",
    "\u{202e}gpj.exe",
    "&lt;b&gt;",
    "\u{1b}[2J",
    "a\u{200b}b\u{200d}c\u{2060}\u{feff}\u{ad}\u{2028}\u{e0041}",
];

/// An operator's browser: it keeps its cookie.
pub struct Browser<'g> {
    gateway: &'g Gateway,
    pub cookie: String,
}

impl World {
    /// A gateway with a console, ready.
    pub async fn start_gateway_with_console(&self) -> Gateway {
        self.is_secret(TOKEN);
        self.start_gateway(&[("CONSOLE_TOKEN", TOKEN)]).await
    }
}

impl<'g> Browser<'g> {
    /// One that has logged in.
    pub async fn logged_in(gateway: &'g Gateway, name: &str) -> Self {
        let answer = log_in(gateway, &[("token", TOKEN), ("name", name)]).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/console")), "{answer:?}");
        let cookie = answer.header("set-cookie").expect("a login sets a cookie");
        Self { gateway, cookie: cookie.split(';').next().expect("a value").to_owned() }
    }

    /// A page that the database answered in time. A slow machine may need more than one try.
    pub async fn open(&self, path: &str) -> Answer {
        until(&format!("{path} is read in time"), || async {
            let page = self.open_once(path).await;
            let is_whole = !TOO_SLOW.iter().any(|words| page.body.contains(words));
            is_whole.then_some(page)
        })
        .await
    }

    /// A page, which has to keep to what every page keeps to. It may say that the database was too slow.
    pub async fn open_once(&self, path: &str) -> Answer {
        let answer = send(self.gateway.request("GET", path).header("Cookie", &self.cookie)).await;
        assert_page(&answer);
        answer
    }

    /// Sends the form of a page that goes to this path, as a browser does: with the page's own hidden fields.
    pub async fn send_form(&self, page: &Answer, path: &str) -> Answer {
        let token = form_token(page, path);
        self.post(path, &[("form_token", &token)]).await
    }

    /// Sends a form with these fields.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        send(self.request(path, fields)).await
    }

    /// The same, not sent yet.
    pub fn request(&self, path: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
        form(self.gateway, path, fields).header("Cookie", &self.cookie)
    }
}

/// The hidden field of the form on a page that goes to this path.
#[track_caller]
pub fn form_token(page: &Answer, path: &str) -> String {
    let action = format!("action=\"{path}\"><input type=\"hidden\" name=\"form_token\" value=\"");
    let (_, after) =
        page.body.split_once(&action).unwrap_or_else(|| panic!("no form goes to {path}: {}", page.body));
    after.split('"').next().expect("a value").to_owned()
}

/// Sends the form of the login.
pub async fn log_in(gateway: &Gateway, fields: &[(&str, &str)]) -> Answer {
    send(form(gateway, "/console/login", fields)).await
}

/// A form without a cookie. Redirects are not followed: their answers are what the tests look at.
pub fn form(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    gateway.request("POST", path).header("Content-Type", "application/x-www-form-urlencoded").body(body)
}

/// What holds of every page: its headers, its size, no script but the console's own, and one heading of the first level.
#[track_caller]
pub fn assert_page(answer: &Answer) {
    assert!(answer.body.len() < LARGEST_PAGE, "{} bytes", answer.body.len());
    assert_headers(answer);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    if answer.body.starts_with("<!DOCTYPE html>") {
        assert_eq!(answer.body.matches("<h1>").count(), 1, "{}", answer.body);
        assert_eq!(answer.body.matches("<script ").count(), 1);
        assert!(answer.body.contains("<html lang=\"en\">") && answer.body.contains("<main id=\"main\""));
    }
    for inline in ["<script>", " style=", "javascript:", "http-equiv"] {
        assert!(!answer.body.contains(inline), "{inline}: {}", answer.body);
    }
}

/// Nothing of these texts is markup on the page.
#[track_caller]
pub fn assert_escaped(body: &str) {
    let markup = ["<script>alert", "<img", "\" onclick", "=' onclick", "&lt;b&gt;", "\u{1b}"];
    let unseen =
        ["\u{202e}", "\u{200b}", "\u{200d}", "\u{2060}", "\u{feff}", "\u{ad}", "\u{2028}", "\u{e0041}"];
    for markup in markup.into_iter().chain(unseen) {
        assert!(!body.contains(markup), "{markup}: {body}");
    }
}

/// What a page links of a part of the console: each once, where its links are together.
pub fn linked<'p>(body: &'p str, part: &str) -> Vec<&'p str> {
    let link = format!("href=\"/console/{part}/");
    let after = body.split(link.as_str()).skip(1);
    let mut all: Vec<_> = after.map(|after| after.split(['"', '/']).next().expect("an address")).collect();
    all.dedup();
    all
}

/// The headers of every answer.
#[track_caller]
pub fn assert_headers(answer: &Answer) {
    let policy = answer.header("content-security-policy").expect("a policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part) && !policy.contains("unsafe"), "{policy}");
    }
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
    assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
    assert_eq!(answer.header("cross-origin-opener-policy"), Some("same-origin"));
    assert_eq!(answer.header("access-control-allow-origin"), None);
}
