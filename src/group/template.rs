//! The words of a group's text: its template, and the template of the link inside it; and where its visitors go on to.

use crate::group_id::GroupId;
use crate::masked::debug_shows;
use crate::{
    session_key::{SessionKey, Token},
    sms_text::SmsText,
};
use std::fmt;
use url::Url;

/// What a group's text says unless `--template` says otherwise.
pub const DEFAULT_TEXT: &str = "Join your session: {link} (code {key})";
/// The most characters that a text may have; the provider takes no more.
pub const MAX_CHARS: usize = 1600;
/// Most texts fit into one SMS, of so many characters.
const ONE_SMS: usize = 160;

/// Digits of the longest key that a text is checked with.
const LONGEST_KEY: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Link,
    Key,
    Token,
    Group,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Placeholder(Placeholder),
}

/// Which template an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateKind {
    Text,
    Link,
    JoinUrl,
}

impl TemplateKind {
    /// The placeholders that the template may hold, as its errors list them.
    const fn known(self) -> &'static str {
        match self {
            Self::Text => "{link}, {key}, {token} and {group}",
            Self::Link | Self::JoinUrl => "{key}, {token} and {group}",
        }
    }

    fn placeholder(self, name: &str) -> Option<Placeholder> {
        match (name, self) {
            ("link", Self::Text) => Some(Placeholder::Link),
            ("key", _) => Some(Placeholder::Key),
            ("token", _) => Some(Placeholder::Token),
            ("group", _) => Some(Placeholder::Group),
            _ => None,
        }
    }
}

impl fmt::Display for TemplateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "--template",
            Self::Link => "--link",
            Self::JoinUrl => "--join-url",
        })
    }
}

/// Why a template cannot be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("{which} has an unknown placeholder {{{name}}}; it may hold {}, and {{{{ or }}}} for a brace", which.known())]
    Unknown { which: TemplateKind, name: String },
    #[error("{which} has a brace without its partner; write {{{{ or }}}} for a brace itself, or one of {}", which.known())]
    Unclosed { which: TemplateKind },
    #[error("{which} has a control character; only a line break may be in it")]
    Control { which: TemplateKind },
    #[error(
        "{which} must be an absolute http:// or https:// URL without spaces, such as https://example.com/j/{{token}}"
    )]
    NotAUrl { which: TemplateKind },
    #[error(
        "the text would hold neither the key nor the token: put {{link}}, {{key}} or {{token}} into --template"
    )]
    NoKeyOrToken,
    #[error("the text may grow to {0} characters, and {MAX_CHARS} is the most: shorten --template or --link")]
    TooLong(usize),
}

/// What is filled in for one session.
#[derive(Clone, Copy)]
pub struct Values<'a> {
    pub key: &'a SessionKey,
    pub token: &'a Token,
    pub group: GroupId,
}

debug_shows!(Values<'_> { group });

/// The longest values that a text can be made with, as a template sees them.
fn with_longest<T>(see: impl FnOnce(&Values<'_>) -> T) -> T {
    const LAST: GroupId = GroupId::new(GroupId::MAX).unwrap();
    see(&Values { key: &SessionKey::example(LONGEST_KEY), token: &Token::example(), group: LAST })
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Template(Vec<Part>);

/// A group's two templates, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wording {
    text: Template,
    link: Template,
}

impl Wording {
    /// Parses both. Without a link template, links are `{public_url}/s/{token}`.
    ///
    /// # Errors
    ///
    /// A placeholder that is unknown or not closed, a control character, or a link that is no URL.
    pub fn parse(text: &str, link: Option<&str>, public_url: &str) -> Result<Self, TemplateError> {
        let text = Template::parse(TemplateKind::Text, text)?;
        let link = match link {
            Some(link) => Template::parse(TemplateKind::Link, link)?,
            None => Template(vec![
                Part::Literal(format!("{}/s/", public_url.trim_end_matches('/'))),
                Part::Placeholder(Placeholder::Token),
            ]),
        };
        let wording = Self { text, link };
        wording.link.is_url(TemplateKind::Link)?;
        Ok(wording)
    }

    /// Parses, and checks that every text made with it holds the key or the token and is short enough to be sent.
    pub fn check(text: &str, link: Option<&str>, public_url: &str) -> Result<Self, TemplateError> {
        let wording = Self::parse(text, link, public_url)?;
        let identifies = wording.text.identifies_session()
            || (wording.text.holds(Placeholder::Link) && wording.link.identifies_session());
        if !identifies {
            return Err(TemplateError::NoKeyOrToken);
        }
        let longest = with_longest(|values| wording.render(values).as_str().chars().count());
        if longest > MAX_CHARS { Err(TemplateError::TooLong(longest)) } else { Ok(wording) }
    }

    /// The text for one session.
    pub fn render(&self, values: &Values<'_>) -> SmsText {
        let mut text = String::with_capacity(ONE_SMS);
        self.text.render(&mut text, values, Some(&self.link));
        text.into()
    }
}

/// Where a group's visitors go on to from the page of their link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinUrl(Template);

impl JoinUrl {
    /// # Errors
    ///
    /// A placeholder that is unknown or not closed, a control character, or what is no URL.
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        let template = Template::parse(TemplateKind::JoinUrl, template)?;
        template.is_url(TemplateKind::JoinUrl)?;
        Ok(Self(template))
    }

    /// The address for one session.
    pub fn render(&self, values: &Values<'_>) -> String {
        let mut url = String::with_capacity(ONE_SMS);
        self.0.render(&mut url, values, None);
        url
    }
}

impl Template {
    fn is_url(&self, which: TemplateKind) -> Result<(), TemplateError> {
        let mut longest = String::new();
        with_longest(|values| self.render(&mut longest, values, None));
        if is_web_url(&longest) { Ok(()) } else { Err(TemplateError::NotAUrl { which }) }
    }

    fn parse(which: TemplateKind, source: &str) -> Result<Self, TemplateError> {
        if source.chars().any(|c| c.is_control() && c != '\n') {
            return Err(TemplateError::Control { which });
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = source;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let after = &rest[at + 1..];
            if let Some(doubled) = after.strip_prefix(brace) {
                literal.push_str(brace);
                rest = doubled;
                continue;
            }
            if brace == "}" {
                return Err(TemplateError::Unclosed { which });
            }
            let (name, after) = after.split_once('}').ok_or(TemplateError::Unclosed { which })?;
            let placeholder = which
                .placeholder(name)
                .ok_or_else(|| TemplateError::Unknown { which, name: name.to_owned() })?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Placeholder(placeholder));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    fn render(&self, text: &mut String, values: &Values<'_>, link: Option<&Self>) {
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Placeholder(Placeholder::Link) => {
                    if let Some(link) = link {
                        link.render(text, values, None);
                    }
                }
                Part::Placeholder(Placeholder::Key) => text.push_str(values.key.as_str()),
                Part::Placeholder(Placeholder::Token) => text.push_str(values.token.as_str()),
                Part::Placeholder(Placeholder::Group) => text.push_str(&values.group.to_string()),
            }
        }
    }

    fn holds(&self, wanted: Placeholder) -> bool {
        self.0.contains(&Part::Placeholder(wanted))
    }

    fn identifies_session(&self) -> bool {
        self.holds(Placeholder::Key) || self.holds(Placeholder::Token)
    }
}

/// Whether it is an absolute http(s) URL as it stands: a parser that mends spaces or slashes is not asked to.
fn is_web_url(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some("https" | "http"))
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        && Url::parse(text).is_ok_and(|url| url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group_id::GroupId;

    const BASE: &str = "https://invite.example";

    fn with_values<T>(see: impl FnOnce(&Values<'_>) -> T) -> T {
        let key = SessionKey::parse("012345").unwrap();
        let token = Token::parse("abcdefgh12345678").unwrap();
        see(&Values { key: &key, token: &token, group: GroupId::new(72).unwrap() })
    }

    fn rendered(text: &str, link: Option<&str>) -> String {
        let wording = Wording::check(text, link, BASE).unwrap();
        with_values(|values| wording.render(values).as_str().to_owned())
    }

    #[test]
    fn placeholders_are_filled_in_and_doubled_braces_are_braces() {
        for (text, link, expected) in [
            (
                DEFAULT_TEXT,
                None,
                "Join your session: https://invite.example/s/abcdefgh12345678 (code 012345)",
            ),
            (
                "{link}",
                Some("http://g{group}.example/{key}?t={token}"),
                "http://g72.example/012345?t=abcdefgh12345678",
            ),
            ("{{{key}}} {{link}}", None, "{012345} {link}"),
            ("Grüße\n{token}", None, "Grüße\nabcdefgh12345678"),
            ("{link}", Some("HTTPS://e.com/{key}"), "HTTPS://e.com/012345"),
            ("{key}{key}", None, "012345012345"),
        ] {
            assert_eq!(rendered(text, link), expected);
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let unknown = |which, name: &str| TemplateError::Unknown { which, name: name.into() };
        for (text, link, expected) in [
            ("{code}", None, unknown(TemplateKind::Text, "code")),
            ("{}", None, unknown(TemplateKind::Text, "")),
            ("{link}", Some("https://e.com/{link}"), unknown(TemplateKind::Link, "link")),
            ("{key", None, TemplateError::Unclosed { which: TemplateKind::Text }),
            ("key} {key}", None, TemplateError::Unclosed { which: TemplateKind::Text }),
            ("{key}\u{0}", None, TemplateError::Control { which: TemplateKind::Text }),
            ("{key}\r\n", None, TemplateError::Control { which: TemplateKind::Text }),
            ("{link}", Some("ftp://e.com/{token}"), TemplateError::NotAUrl { which: TemplateKind::Link }),
            ("{link}", Some("/s/{token}"), TemplateError::NotAUrl { which: TemplateKind::Link }),
            (
                "{link}",
                Some("https://e.com/a b/{token}"),
                TemplateError::NotAUrl { which: TemplateKind::Link },
            ),
            ("Hello {group}", None, TemplateError::NoKeyOrToken),
            ("{link}", Some("https://e.com/{group}"), TemplateError::NoKeyOrToken),
            ("", None, TemplateError::NoKeyOrToken),
        ] {
            assert_eq!(Wording::check(text, link, BASE).unwrap_err(), expected, "{text} {link:?}");
        }
    }

    #[test]
    fn visitors_go_on_to_a_url_of_their_session() {
        let url = JoinUrl::parse("https://e.com/{group}?code={key}#{token}").unwrap();
        let rendered = |url: &JoinUrl| with_values(|values| url.render(values));
        assert_eq!(rendered(&url), "https://e.com/72?code=012345#abcdefgh12345678");
        assert_eq!(rendered(&JoinUrl::parse("https://e.com/").unwrap()), "https://e.com/");
        for bad in ["javascript:alert(1)", "/join/{key}", "https://{link}", "https://e.com/ {key}", ""] {
            assert!(JoinUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_rendering_counts() {
        let text = |filler: usize| format!("{}{{key}}", "ä".repeat(filler));
        assert!(Wording::check(&text(1590), None, BASE).is_ok());
        assert_eq!(Wording::check(&text(1591), None, BASE).unwrap_err(), TemplateError::TooLong(1601));
    }
}
