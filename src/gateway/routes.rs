//! The gateway's addresses. They match in any case, with or without the last slash, and with or without the path of
//! `PUBLIC_URL` before them; what a visitor's link holds keeps its case.

use std::borrow::Cow;

/// One address: as the router knows it, and as the documents show it. A name in braces stands for one segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    pub path: &'static str,
    pub shown: &'static str,
}

impl Route {
    /// As the OpenAPI document has it, whose tools want no slash at the end of a path.
    pub fn published(&self) -> &'static str {
        self.shown.trim_end_matches('/')
    }
}

const fn route(path: &'static str, shown: &'static str) -> Route {
    Route { path, shown }
}

pub const SMS_INVITE: Route = route("/api/sessioninvitation/smsinvite", "/api/SessionInvitation/smsInvite/");
pub const SESSION: Route = route("/api/sessioninvitation/session", "/api/SessionInvitation/session/");
pub const JOIN: Route = route("/api/sessioninvitation/session/join", "/api/SessionInvitation/session/join/");
pub const END: Route = route("/api/sessioninvitation/session/end", "/api/SessionInvitation/session/end/");
pub const VISITOR: Route = route("/s/{token}", "/s/{token}");
pub const TWILIO_STATUS: Route =
    route("/webhooks/twilio/status/{sessionid}", "/webhooks/twilio/status/{sessionId}");
pub const TWILIO_INBOUND: Route = route("/webhooks/twilio/inbound", "/webhooks/twilio/inbound");
pub const OPENAPI: Route = route("/openapi.json", "/openapi.json");
pub const DOCS: Route = route("/docs", "/docs");
pub const HEALTHZ: Route = route("/healthz", "/healthz");
pub const READYZ: Route = route("/readyz", "/readyz");

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

/// The address that a path leads to, and the path as the router knows it. `prefix` is what `PUBLIC_URL` has before it.
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

/// The path with those characters as themselves that need not be encoded.
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

/// A visitor's link whose end a reader's program has put more punctuation to than belongs there, as in `/s/token/).`; a
/// segment that holds no letter and no digit is none of ours.
fn without_tail(path: &str) -> Option<&str> {
    let (link, tail) = path.rsplit_once('/')?;
    let is_punctuation = |tail: &str| !tail.chars().any(|c| c.is_alphanumeric() || c.is_control());
    let decoded = percent_encoding::percent_decode_str(tail).decode_utf8().ok()?;
    is_punctuation(&decoded).then(|| link.trim_end_matches('/'))
}

/// The path in the pattern's case, if it is one of its kind.
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
    fn what_has_to_be_encoded_stays_so() {
        assert_eq!(find("/s/%61B%2F%zz%e9%", "").unwrap().1, "/s/aB%2F%zz%e9%");
        assert_eq!(find("/s%2Fx", ""), None);
        assert_eq!(find("/openapi%2", ""), None);
    }

    #[test]
    fn punctuation_after_the_last_slash_of_a_link_is_no_part_of_it() {
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
    fn what_public_url_has_before_it_is_taken_off() {
        for path in ["/invite/s/aB", "/Invite/s/aB/", "/s/aB"] {
            assert_eq!(find(path, "/invite"), Some((&VISITOR, "/s/aB".to_owned())), "{path}");
        }
        assert_eq!(find("/s/s/aB", "/s").unwrap().1, "/s/aB");
        assert_eq!(find("/invited/s/aB", "/invite"), None);
        assert_eq!(find("/invite/invite/s/aB", "/invite"), None);
        assert_eq!(find("/ä", "/invi"), None);
    }
}
