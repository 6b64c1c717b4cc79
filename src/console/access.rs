//! Who may come in: the holder of `CONSOLE_TOKEN`, who gets a cookie, and whom a trusted proxy names. And which forms are the
//! console's own.
//!
//! No login is stored, but those that ended before their time. A cookie is signed under a key of `SECRETS_KEY` and
//! `CONSOLE_TOKEN`, so that all gateways agree, and a change of either ends every login.

use super::ended_logins::EndedLogins;
use crate::{
    audit::{ConsolePerson, NameSource},
    config::{ConsoleConfig, GatewayConfig},
    gateway::RequestSender,
    hmac_key::{HmacKey, any_signed},
    pasted,
    seal::SecretsKey,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use subtle::ConstantTimeEq;

/// The field of a form by which it is known to be of this console.
pub(super) const FORM_TOKEN: &str = "form_token";
const COOKIE: &str = "session-invite-console";
/// How long a login lasts.
const LASTS: Duration = Duration::from_hours(12);
/// Characters of an operator's name at most.
pub(super) const LONGEST_NAME: usize = 64;
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What decides who comes in.
pub(super) struct Access {
    token: Option<SecretString>,
    user_header: Option<HeaderName>,
    key: HmacKey,
    ended: EndedLogins,
    /// The path of the cookie, and its attribute `Secure` if `PUBLIC_URL` has TLS.
    cookie_attributes: String,
    /// The scheme, host and port of `PUBLIC_URL`.
    origin: String,
}

/// An operator who uses the console.
#[derive(Debug, Clone)]
pub(super) struct ConsoleUser {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) login: LoginKind,
}

/// How an operator came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LoginKind {
    /// By the token. The id is random, and new with each login.
    Cookie { id: String },
    /// A trusted proxy names the operator.
    Proxy,
}

/// Why somebody does not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAccess {
    NotLoggedIn,
    /// What the proxy's header says is no name.
    NoName,
}

impl Access {
    /// `base` is the path of the console.
    pub(super) fn new(config: &ConsoleConfig, gateway: &GatewayConfig, base: &str) -> Self {
        // The configuration has checked that it is a header's name.
        let user_header = config.user_header.as_ref().and_then(|name| name.parse().ok());
        Self::with(config.token.clone(), user_header, &gateway.secrets_key, &gateway.public_url.base, base)
    }

    fn with(
        token: Option<SecretString>,
        user_header: Option<HeaderName>,
        secrets: &SecretsKey,
        public_url: &str,
        base: &str,
    ) -> Self {
        let secret = token.as_ref().map_or("", |token| token.expose_secret());
        let origin =
            url::Url::parse(public_url).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
        let secure = if origin.starts_with("https:") { "; Secure" } else { "" };
        Self {
            key: secrets.derived_key("the console's cookies and forms", secret.as_bytes()),
            token,
            user_header,
            ended: EndedLogins::default(),
            // `Strict` would have operators log in again at each link that they follow from a chat. No page changes anything by
            // GET, and forms of other sites are refused for what browsers say of them.
            cookie_attributes: format!("; Path={base}; HttpOnly; SameSite=Lax{secure}"),
            origin,
        }
    }

    /// Whether one can log in by the token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether this is the token. The time that it takes shows nothing of it, nor its length.
    pub(super) fn is_token(&self, given: &str) -> bool {
        let Some(token) = &self.token else { return false };
        let [given, token] =
            [given, token.expose_secret()].map(|text| self.key.mac(&[b"token\0", text.as_bytes()]));
        given.ct_eq(&token).into()
    }

    /// The operator who sends these headers.
    pub(super) fn user(
        &self,
        headers: &HeaderMap,
        sender: RequestSender,
        address: IpAddr,
    ) -> Result<ConsoleUser, NoAccess> {
        if let Some(header) = self.user_header.as_ref().filter(|_| sender == RequestSender::TrustedProxy) {
            let mut names = headers.get_all(header).iter();
            if let Some(first) = names.next() {
                let name = std::str::from_utf8(first.as_bytes()).ok().and_then(person);
                return match (name, names.next()) {
                    (Some(name), None) => Ok(ConsoleUser { name, address, login: LoginKind::Proxy }),
                    _ => Err(NoAccess::NoName),
                };
            }
        }
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut ours = cookies.flat_map(|line| line.split(';')).filter_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == COOKIE).then_some(value)
        });
        let found =
            ours.find_map(|value| self.read_cookie(value, now()).filter(|(id, _)| !self.ended.has(id)));
        let (id, name) = found.ok_or(NoAccess::NotLoggedIn)?;
        Ok(ConsoleUser { name, address, login: LoginKind::Cookie { id } })
    }

    /// The header that logs an operator of this name in.
    pub(super) fn cookie(&self, name: &str) -> Option<HeaderValue> {
        let until = now() + LASTS.as_secs();
        let id = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
        let signed = format!("{until}.{id}.{}", URL_SAFE_NO_PAD.encode(name));
        let signature = self.key.sign(&[b"login\0", signed.as_bytes()]);
        let value =
            format!("{COOKIE}={signed}.{signature}; Max-Age={}{}", LASTS.as_secs(), self.cookie_attributes);
        HeaderValue::from_str(&value).ok()
    }

    /// Ends the operator's login at this gateway.
    pub(super) fn end_login(&self, user: &ConsoleUser) {
        if let LoginKind::Cookie { id } = &user.login {
            self.ended.end(id, LASTS);
        }
    }

    /// The header that ends a login in its browser.
    pub(super) fn no_cookie(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&format!("{COOKIE}=; Max-Age=0{}", self.cookie_attributes)).ok()
    }

    /// The login's id and the operator's name, if the cookie is genuine and not over.
    fn read_cookie(&self, value: &str, now: u64) -> Option<(String, String)> {
        let (signed, signature) = value.rsplit_once('.')?;
        if !any_signed([&self.key], &[b"login\0", signed.as_bytes()], signature.as_bytes()) {
            return None;
        }
        let mut parts = signed.split('.');
        let (until, id, name) = (parts.next()?, parts.next()?, parts.next()?);
        let name = String::from_utf8(URL_SAFE_NO_PAD.decode(name).ok()?).ok()?;
        (until.parse::<u64>().ok()? > now).then(|| (id.to_owned(), name))
    }

    /// What a form of this operator carries that goes to this path. No other site can know it.
    pub(super) fn form_token(&self, user: &ConsoleUser, path: &str) -> String {
        self.key.sign(&[b"form\0", user.identity().as_bytes(), b"\0", path.as_bytes()])
    }

    /// Whether that is in the form.
    pub(super) fn is_form_token(&self, user: &ConsoleUser, path: &str, given: &str) -> bool {
        let identity = user.identity();
        let parts: [&[u8]; 4] = [b"form\0", identity.as_bytes(), b"\0", path.as_bytes()];
        any_signed([&self.key], &parts, given.as_bytes())
    }

    /// Whether a browser says that a page of another site sent the request. A client that is no browser says nothing.
    pub(super) fn is_from_elsewhere(&self, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
        if text(SEC_FETCH_SITE).is_some_and(|site| site != "same-origin") {
            return true;
        }
        text(header::ORIGIN).is_some_and(|origin| {
            let host = origin.split_once("://").map(|(_, host)| host);
            let is_host = host.is_some() && host == text(header::HOST);
            !is_host && origin != self.origin
        })
    }
}

/// Whether a browser says that a page of another site embeds or reads what is here, rather than leads a person here.
pub(super) fn is_embedded_elsewhere(headers: &HeaderMap) -> bool {
    let is = |name, value: &str| headers.get(name).is_some_and(|given: &HeaderValue| given == value);
    let is_of_us = !headers.contains_key(SEC_FETCH_SITE)
        || is(SEC_FETCH_SITE, "same-origin")
        || is(SEC_FETCH_SITE, "none");
    let leads_here = is(SEC_FETCH_MODE, "navigate") && is(SEC_FETCH_DEST, "document");
    !is_of_us && !leads_here
}

impl ConsoleUser {
    /// The operator, as the audit has them.
    pub(super) fn person(&self) -> ConsolePerson {
        let name_from = match self.login {
            LoginKind::Cookie { .. } => NameSource::Token,
            LoginKind::Proxy => NameSource::Proxy,
        };
        ConsolePerson { name: self.name.clone(), name_from, address: self.address }
    }

    /// What the forms of this login are bound to.
    fn identity(&self) -> String {
        match &self.login {
            LoginKind::Cookie { id } => format!("cookie {id}"),
            LoginKind::Proxy => format!("proxy {}", self.name),
        }
    }
}

/// An operator's name: without white space around it, of characters that are seen.
pub(super) fn person(text: &str) -> Option<String> {
    let name = text.trim_matches(' ');
    let is_unseen = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER || pasted::is_invisible(c);
    let is_name = (1..=LONGEST_NAME).contains(&name.chars().count()) && !name.contains(is_unseen);
    is_name.then(|| name.to_owned())
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(secrets_key: u8, token: &str) -> Access {
        let secrets = SecretsKey::parse(&base64::prelude::BASE64_STANDARD.encode([secrets_key; 32])).unwrap();
        Access::with(
            Some(SecretString::from(token.to_owned())),
            Some(HeaderName::from_static("x-forwarded-user")),
            &secrets,
            "https://invite.example/x",
            "/x/console",
        )
    }

    fn value(cookie: &HeaderValue) -> String {
        let cookie = cookie.to_str().unwrap();
        cookie.split_once(';').unwrap().0.split_once('=').unwrap().1.to_owned()
    }

    #[test]
    fn a_cookie_counts_until_it_is_over_and_under_its_own_keys_only() {
        let own = access(1, "a token of the console");
        let header = own.cookie("Zoë O'Brien").unwrap();
        let attributes = header.to_str().unwrap().split_once(';').unwrap().1;
        assert_eq!(attributes, " Max-Age=43200; Path=/x/console; HttpOnly; SameSite=Lax; Secure");
        let cookie = value(&header);
        assert_eq!(own.read_cookie(&cookie, now()).unwrap().1, "Zoë O'Brien");
        assert_eq!(own.read_cookie(&cookie, now() + LASTS.as_secs() + 1), None);
        for other in [access(2, "a token of the console"), access(1, "another token of it")] {
            assert_eq!(other.read_cookie(&cookie, now()), None);
        }
        for at in 0..cookie.len() {
            let mut forged = cookie.clone().into_bytes();
            forged[at] = if forged[at] == b'1' { b'2' } else { b'1' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(own.read_cookie(&forged, now()), None, "{at}");
        }
        for forged in ["", ".", "...", "9999999999.x.y.", &format!("9{cookie}"), &format!("{cookie}=")] {
            assert_eq!(own.read_cookie(forged, now()), None, "{forged}");
        }
    }

    #[test]
    fn a_form_is_bound_to_its_login_and_its_path() {
        let own = access(1, "a token of the console");
        let user = |name: &str, login| ConsoleUser {
            name: name.to_owned(),
            address: IpAddr::from([127, 0, 0, 1]),
            login,
        };
        let ann = user("Ann", LoginKind::Cookie { id: "1".to_owned() });
        let token = own.form_token(&ann, "/groups/72/pause");
        assert!(own.is_form_token(&ann, "/groups/72/pause", &token));
        assert!(!own.is_form_token(&ann, "/groups/73/pause", &token));
        assert!(!own.is_form_token(&ann, "/groups/72/pause", ""));
        for other in [user("Ann", LoginKind::Cookie { id: "2".to_owned() }), user("Ann", LoginKind::Proxy)] {
            assert!(!own.is_form_token(&other, "/groups/72/pause", &token));
        }
    }

    #[test]
    fn a_request_of_another_site_is_known_by_what_browsers_say() {
        let own = access(1, "a token of the console");
        let is_from_elsewhere = |lines: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("192.0.2.1:8080"));
            for (name, value) in lines {
                headers.insert(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
            }
            own.is_from_elsewhere(&headers)
        };
        for own in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("origin", "https://invite.example")],
            &[("origin", "http://192.0.2.1:8080")],
        ] {
            assert!(!is_from_elsewhere(own), "{own:?}");
        }
        for other in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://evil.example")],
            &[("origin", "https://invite.example.evil.example")],
            &[("origin", "http://invite.example")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")],
        ] {
            assert!(is_from_elsewhere(other), "{other:?}");
        }
    }

    #[test]
    fn a_name_has_characters_that_are_seen() {
        assert_eq!(person(" Zoë O'Brien "), Some("Zoë O'Brien".to_owned()));
        let long = "x".repeat(65);
        for wrong in ["", "  ", "a\tb", "a\u{202e}b", "a\u{200b}b", "a\nb", &long] {
            assert_eq!(person(wrong), None, "{wrong:?}");
        }
    }
}
