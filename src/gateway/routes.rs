//! The gateway's addresses. They match in any case, with or without the last slash, and with or without the path of
//! `PUBLIC_URL` before them. The token in a visitor's link keeps its case.

use std::borrow::Cow;

/// One address: as the router knows it, and as the documents show it. A name in braces stands for one segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// The path to match, in lower case and without a last slash.
    pub path: &'static str,
    /// The path as the documents write it.
    pub shown: &'static str,
}

impl Route {
    /// The path in the OpenAPI document, whose tools want no slash at its end.
    pub fn published(&self) -> &'static str {
        self.shown.trim_end_matches('/')
    }
}

const fn route(path: &'static str, shown: &'static str) -> Route {
    Route { path, shown }
}

/// Sends an invite.
pub const SMS_INVITE: Route = route("/api/sessioninvitation/smsinvite", "/api/SessionInvitation/smsInvite/");
/// Looks a session up by its key.
pub const SESSION: Route = route("/api/sessioninvitation/session", "/api/SessionInvitation/session/");
/// An agent joins a session.
pub const JOIN: Route = route("/api/sessioninvitation/session/join", "/api/SessionInvitation/session/join/");
/// An agent ends a session.
pub const END: Route = route("/api/sessioninvitation/session/end", "/api/SessionInvitation/session/end/");
/// The link in a visitor's text.
pub const VISITOR: Route = route("/s/{token}", "/s/{token}");
/// The provider's receipts.
pub const TWILIO_STATUS: Route =
    route("/webhooks/twilio/status/{sessionid}", "/webhooks/twilio/status/{sessionId}");
/// Texts from visitors, such as STOP.
pub const TWILIO_INBOUND: Route = route("/webhooks/twilio/inbound", "/webhooks/twilio/inbound");
/// The OpenAPI document.
pub const OPENAPI: Route = route("/openapi.json", "/openapi.json");
/// The OpenAPI document as a page.
pub const DOCS: Route = route("/docs", "/docs");
/// Liveness.
pub const HEALTHZ: Route = route("/healthz", "/healthz");
/// Readiness.
pub const READYZ: Route = route("/readyz", "/readyz");

/// The console for operators, with every address below it. It is in none of the documents, and only there if it is set.
pub const CONSOLE: Route = route("/console", "/console");

/// Every address, in the order in which an integrator needs them; the busiest come first.
pub const ALL: [&Route; 11] = [
    &SMS_INVITE,
    &SESSION,
    &JOIN,
    &END,
    &VISITOR,
    &TWILIO_STATUS,
    &TWILIO_INBOUND,
    &HEALTHZ,
    &READYZ,
    &OPENAPI,
    &DOCS,
];

/// The route of a path, and the path as the router knows it. `prefix` is the path of `PUBLIC_URL`.
pub fn find(path: &str, prefix: &str) -> Option<(&'static Route, String)> {
    // An unreserved character may be written in two ways (RFC 3986, section 2.3).
    let plain = decoded(path);
    let path = plain.trim_end_matches('/');
    let found = || ALL.into_iter().find_map(|route| Some((route, canonical(route.path, path)?)));
    let link = || Some((&VISITOR, canonical(VISITOR.path, without_tail(path)?)?));
    found().or_else(link).or_else(|| {
        let (before, rest) = path.split_at_checked(prefix.len())?;
        let is_prefix = !prefix.is_empty() && before.eq_ignore_ascii_case(prefix) && rest.starts_with('/');
        is_prefix.then(|| find(rest, "")).flatten()
    })
}

/// The path of an address of the console, as the router knows it: without the path of `PUBLIC_URL`, which is `prefix`, and
/// without slashes at its end. Only as it is written here: a proxy's rule for it does not know of other cases.
pub fn console(path: &str, prefix: &str) -> Option<String> {
    let below = |path: &str| {
        let rest = path.strip_prefix(CONSOLE.path)?;
        let is_below = rest.is_empty() || rest.starts_with('/');
        is_below.then(|| [CONSOLE.path, rest.trim_end_matches('/')].concat())
    };
    below(path).or_else(|| path.strip_prefix(prefix).and_then(below))
}

/// The path with its unreserved characters decoded. All others stay as they are.
fn decoded(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let unreserved = |c: &char| c.is_ascii_alphanumeric() || "-._~".contains(*c);
        let (c, length) = code.map(char::from).filter(unreserved).map_or(('%', 1), |c| (c, 3));
        plain.push(c);
        rest = &rest[at + length..];
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// The path without a last segment of punctuation, which a reader's program may put behind a visitor's link, as in
/// `/s/token/).`. No address of the gateway has a segment without a letter or digit.
fn without_tail(path: &str) -> Option<&str> {
    let (link, tail) = path.rsplit_once('/')?;
    let is_punctuation = |tail: &str| !tail.chars().any(|c| c.is_alphanumeric() || c.is_control());
    let decoded = percent_encoding::percent_decode_str(tail).decode_utf8().ok()?;
    is_punctuation(&decoded).then(|| link.trim_end_matches('/'))
}

/// The path in the pattern's case, if it matches the pattern.
fn canonical(pattern: &'static str, path: &str) -> Option<String> {
    let (mut names, mut given) = (pattern.split('/'), path.split('/'));
    let mut whole = String::with_capacity(path.len());
    loop {
        match (names.next(), given.next()) {
            (None, None) => return Some(whole[1..].to_owned()),
            (Some(name), Some(segment)) => {
                whole.push('/');
                if name.starts_with('{') && !segment.is_empty() {
                    whole.push_str(segment);
                } else if name.eq_ignore_ascii_case(segment) {
                    whole.push_str(name);
                } else {
                    return None;
                }
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_match_in_any_case_and_with_any_slashes_at_the_end() {
        for (path, known) in [
            ("/api/SessionInvitation/smsInvite/", &SMS_INVITE),
            ("/API/SESSIONINVITATION/SMSINVITE", &SMS_INVITE),
            ("/api/sessioninvitation/session//", &SESSION),
            ("/api/sessioninvitation/session/JOIN", &JOIN),
            ("/OpenAPI.json", &OPENAPI),
            ("/%61pi/Session%49nvitation/%73%4DsInvite/", &SMS_INVITE),
        ] {
            assert_eq!(find(path, ""), Some((known, known.path.to_owned())), "{path}");
        }
        for path in [
            "",
            "/",
            "//",
            "/api",
            "/api//sessioninvitation/session",
            "/s",
            "/s/",
            "/s/a/b",
            "/healthz/x",
            "/metrics",
            "/METRICS/",
            "/%6detrics",
        ] {
            assert_eq!(find(path, ""), None, "{path}");
        }
    }

    #[test]
    fn the_console_is_found_with_every_address_below_it() {
        for (path, prefix, known) in [
            ("/console", "", Some("/console")),
            ("/console/", "", Some("/console")),
            // A proxy's rule for the console does not hold for other cases.
            ("/Console", "", None),
            ("/console/groups/72/", "", Some("/console/groups/72")),
            ("/console/sessions/aB", "/x", Some("/console/sessions/aB")),
            ("/x/console/audit", "/x", Some("/console/audit")),
            ("/X/console", "/x", None),
            ("/x/CONSOLE", "/x", None),
            ("/consoles", "", None),
            ("/x/console", "", None),
            ("/x/x/console", "/x", None),
            ("/con", "", None),
        ] {
            assert_eq!(console(path, prefix).as_deref(), known, "{path} {prefix}");
            assert_eq!(find(path, prefix), None, "{path}");
        }
    }

    #[test]
    fn what_has_to_be_encoded_stays_so() {
        assert_eq!(find("/s/%61B%2F%zz%e9%", "").unwrap().1, "/s/aB%2F%zz%e9%");
        assert_eq!(find("/s%2Fx", ""), None);
        assert_eq!(find("/openapi%2", ""), None);
    }

    #[test]
    fn punctuation_after_the_last_slash_of_a_link_is_cut_off() {
        for path in ["/s/aB3/.", "/S/aB3/).", "/s/aB3/%20", "/s/aB3/%E2%80%9D/", "/s/aB3//)"] {
            assert_eq!(find(path, ""), Some((&VISITOR, "/s/aB3".to_owned())), "{path}");
        }
        for path in ["/s/aB3/x", "/s/aB3/x.", "/s/aB3/%00", "/s/aB3/%ff", "/docs/."] {
            assert_eq!(find(path, ""), None, "{path}");
        }
    }

    #[test]
    fn a_token_keeps_its_case() {
        assert_eq!(find("/S/aB3/", "").unwrap().1, "/s/aB3");
        let (route, path) = find("/WebHooks/Twilio/Status/0193-AB", "").unwrap();
        assert_eq!((route, path.as_str()), (&TWILIO_STATUS, "/webhooks/twilio/status/0193-AB"));
    }

    #[test]
    fn the_path_of_public_url_is_taken_off() {
        for path in ["/invite/s/aB", "/Invite/s/aB/", "/s/aB"] {
            assert_eq!(find(path, "/invite"), Some((&VISITOR, "/s/aB".to_owned())), "{path}");
        }
        assert_eq!(find("/s/s/aB", "/s").unwrap().1, "/s/aB");
        assert_eq!(find("/invited/s/aB", "/invite"), None);
        assert_eq!(find("/invite/invite/s/aB", "/invite"), None);
        assert_eq!(find("/ä", "/invi"), None);
    }
}
