//! The templates of a group: of its text, of the link in the text, and of the URL that the visitor's page leads to.

use crate::group_id::GroupId;
use crate::masked::debug_shows;
use crate::{
    session_key::{SessionKey, Token},
    sms_text::SmsText,
};
use url::Url;

/// The text of a group without `--template`.
pub const DEFAULT_TEXT: &str = "Join your session: {link} (code {key})";
/// The most characters of a text that the provider accepts.
pub(crate) const MAX_CHARS: usize = 1600;
/// The characters of one SMS, into which most texts fit.
const ONE_SMS: usize = 160;

/// The digits of the longest session key, for checking a text's length.
const LONGEST_KEY: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
enum Placeholder {
    Link,
    Key,
    Token,
    Group,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Literal(String),
    Placeholder(Placeholder),
}

/// Which template an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum TemplateKind {
    #[strum(to_string = "--template")]
    Text,
    #[strum(to_string = "--link")]
    Link,
    #[strum(to_string = "--join-url")]
    JoinUrl,
}

impl TemplateKind {
    /// The placeholders that the template may have, as its errors list them.
    const fn known(self) -> &'static str {
        match self {
            Self::Text => "{link}, {key}, {token} and {group}",
            Self::Link | Self::JoinUrl => "{key}, {token} and {group}",
        }
    }

    fn placeholder(self, name: &str) -> Option<Placeholder> {
        let placeholder = name.parse().ok()?;
        (placeholder != Placeholder::Link || self == Self::Text).then_some(placeholder)
    }
}

/// Why a template cannot be used, with the remedy.
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
    #[error(
        "the text would hold neither the key nor the token, as neither --template nor --link holds {{key}} or {{token}}: put \
         one of them into either"
    )]
    LinkWithoutKeyOrToken,
    #[error("the text may grow to {0} characters, and {MAX_CHARS} is the most: shorten --template or --link")]
    TooLong(usize),
}

/// The values of the placeholders for one session.
#[derive(Clone, Copy)]
pub struct TemplateValues<'a> {
    /// Fills `{key}`.
    pub key: &'a SessionKey,
    /// The secret part of the link.
    pub token: &'a Token,
    /// Fills `{group}`.
    pub group: GroupId,
}

debug_shows!(TemplateValues<'_> { group });

/// Calls `see` with the longest values that the placeholders can have.
fn with_longest<T>(see: impl FnOnce(&TemplateValues<'_>) -> T) -> T {
    const LAST: GroupId = GroupId::new(GroupId::MAX).unwrap();
    see(&TemplateValues { key: &SessionKey::example(LONGEST_KEY), token: &Token::example(), group: LAST })
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Template(Vec<TemplatePart>);

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
    /// A placeholder that is unknown or not closed, a control character, or a link that is not a URL.
    pub fn parse(text: &str, link: Option<&str>, public_url: &str) -> Result<Self, TemplateError> {
        let text = Template::parse(TemplateKind::Text, text)?;
        let link = match link {
            Some(link) => Template::parse(TemplateKind::Link, link)?,
            None => Template(vec![
                TemplatePart::Literal(format!("{}/s/", public_url.trim_end_matches('/'))),
                TemplatePart::Placeholder(Placeholder::Token),
            ]),
        };
        let wording = Self { text, link };
        wording.link.is_url(TemplateKind::Link)?;
        Ok(wording)
    }

    /// Parses both, and checks that every text has the key or the token, and is short enough to be sent.
    pub fn check(text: &str, link: Option<&str>, public_url: &str) -> Result<Self, TemplateError> {
        let wording = Self::parse(text, link, public_url)?;
        wording.text.check_as_text(Some(&wording.link))?;
        if !wording.text.identifies_session() && !wording.link.identifies_session() {
            return Err(TemplateError::LinkWithoutKeyOrToken);
        }
        Ok(wording)
    }

    /// Refuses a text template that is wrong with every link.
    pub(crate) fn check_text(text: &str) -> Result<(), TemplateError> {
        Template::parse(TemplateKind::Text, text)?.check_as_text(None)
    }

    /// Refuses a link template that is wrong with every text.
    pub(crate) fn check_link(link: &str) -> Result<(), TemplateError> {
        Template::parse(TemplateKind::Link, link)?.is_url(TemplateKind::Link)
    }

    /// The text for one session.
    pub fn render(&self, values: &TemplateValues<'_>) -> SmsText {
        let mut text = String::with_capacity(ONE_SMS);
        self.text.render(&mut text, values, Some(&self.link));
        text.into()
    }
}

/// The template of the URL that the visitor's page leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinUrl(Template);

impl JoinUrl {
    /// # Errors
    ///
    /// A placeholder that is unknown or not closed, a control character, or a text that is not a URL.
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        let template = Template::parse(TemplateKind::JoinUrl, template)?;
        template.is_url(TemplateKind::JoinUrl)?;
        Ok(Self(template))
    }

    /// The URL for one session.
    pub fn render(&self, values: &TemplateValues<'_>) -> String {
        let mut url = String::with_capacity(ONE_SMS);
        self.0.render(&mut url, values, None);
        url
    }
}

impl Template {
    /// Whether texts hold the key, the token or the link, and are short enough. Without a link, `{link}` counts as empty.
    fn check_as_text(&self, link: Option<&Self>) -> Result<(), TemplateError> {
        if !self.identifies_session() && !self.holds(Placeholder::Link) {
            return Err(TemplateError::NoKeyOrToken);
        }
        let mut longest = String::new();
        with_longest(|values| self.render(&mut longest, values, link));
        let longest = longest.chars().count();
        if longest > MAX_CHARS { Err(TemplateError::TooLong(longest)) } else { Ok(()) }
    }

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
                parts.push(TemplatePart::Literal(std::mem::take(&mut literal)));
            }
            parts.push(TemplatePart::Placeholder(placeholder));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(TemplatePart::Literal(literal));
        }
        Ok(Self(parts))
    }

    fn render(&self, text: &mut String, values: &TemplateValues<'_>, link: Option<&Self>) {
        for part in &self.0 {
            match part {
                TemplatePart::Literal(literal) => text.push_str(literal),
                TemplatePart::Placeholder(Placeholder::Link) => {
                    if let Some(link) = link {
                        link.render(text, values, None);
                    }
                }
                TemplatePart::Placeholder(Placeholder::Key) => text.push_str(values.key.as_str()),
                TemplatePart::Placeholder(Placeholder::Token) => text.push_str(values.token.as_str()),
                TemplatePart::Placeholder(Placeholder::Group) => text.push_str(&values.group.to_string()),
            }
        }
    }

    fn holds(&self, wanted: Placeholder) -> bool {
        self.0.contains(&TemplatePart::Placeholder(wanted))
    }

    fn identifies_session(&self) -> bool {
        self.holds(Placeholder::Key) || self.holds(Placeholder::Token)
    }
}

/// Whether the text is an absolute http(s) URL as it is written. The URL parser alone would correct spaces and slashes.
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

    fn with_values<T>(see: impl FnOnce(&TemplateValues<'_>) -> T) -> T {
        let key = SessionKey::parse("012345").unwrap();
        let token = Token::parse("abcdefgh12345678").unwrap();
        see(&TemplateValues { key: &key, token: &token, group: GroupId::new(72).unwrap() })
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
    fn a_template_whose_text_cannot_be_sent_is_refused() {
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
            ("{link}", Some("https://e.com/{group}"), TemplateError::LinkWithoutKeyOrToken),
            ("{link}{group}", Some("http://x/"), TemplateError::LinkWithoutKeyOrToken),
            ("", None, TemplateError::NoKeyOrToken),
        ] {
            assert_eq!(Wording::check(text, link, BASE).unwrap_err(), expected, "{text} {link:?}");
            // A template that is wrong by itself is refused by itself.
            let alone = Wording::check_text(text).and(link.map_or(Ok(()), Wording::check_link));
            let together = expected == TemplateError::LinkWithoutKeyOrToken;
            assert_eq!(alone, if together { Ok(()) } else { Err(expected) }, "{text} {link:?}");
        }
    }

    #[test]
    fn a_join_url_is_rendered_for_a_session() {
        let url = JoinUrl::parse("https://e.com/{group}?code={key}#{token}").unwrap();
        let rendered = |url: &JoinUrl| with_values(|values| url.render(values));
        assert_eq!(rendered(&url), "https://e.com/72?code=012345#abcdefgh12345678");
        assert_eq!(rendered(&JoinUrl::parse("https://e.com/").unwrap()), "https://e.com/");
        for bad in ["javascript:alert(1)", "/join/{key}", "https://{link}", "https://e.com/ {key}", ""] {
            assert!(JoinUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_possible_text_counts() {
        let text = |filler: usize| format!("{}{{key}}", "ä".repeat(filler));
        assert!(Wording::check(&text(1590), None, BASE).is_ok());
        assert_eq!(Wording::check(&text(1591), None, BASE).unwrap_err(), TemplateError::TooLong(1601));
        let with_link = text(1591).replace("{key}", "{key}{link}");
        assert_eq!(Wording::check_text(&with_link).unwrap_err(), TemplateError::TooLong(1601));
        assert!(Wording::check_text(&text(1590).replace("{key}", "{link}")).is_ok());
    }
}
