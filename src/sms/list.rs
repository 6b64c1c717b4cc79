//! Looking for a text in the provider's list, when the answer to its request was lost.

use super::{Place, client::path_of, written::Guard};
use crate::{
    masked::debug_shows,
    phone::PhoneNumber,
    session_key::{SessionKey, Token},
    sms_text::SmsText,
};
use serde::Deserialize;
use std::{fmt::Display, time::Instant};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc2822};
use url::Url;

/// Messages on a page; the provider gives at most 1000.
const PAGE_SIZE: &str = "200";
/// Pages that are read at most: more than a session can have had texts to its number.
const PAGES: usize = 50;
/// A page longer than this is none of the provider's.
const LARGEST_PAGE: usize = 8 * 1024 * 1024;
/// How far the provider's clock and Postgres's may be apart.
const CLOCKS_APART: Duration = Duration::minutes(5);

/// The text that is looked for.
pub struct Wanted<'a> {
    pub to: &'a PhoneNumber,
    pub key: &'a SessionKey,
    pub token: &'a Token,
    /// The whole text, as it was handed over.
    pub text: &'a SmsText,
    /// Before its first try.
    pub since: OffsetDateTime,
}

debug_shows!(Wanted<'_> { since });

/// The provider's list could not be read: nothing is known.
#[derive(Debug, thiserror::Error)]
#[error("the provider's list cannot be read: {0}")]
pub struct LookFailed(String);

#[derive(Deserialize)]
struct Page {
    messages: Vec<Listed>,
    next_page_uri: Option<String>,
}

/// A message in the list; nearly every member may be null.
#[derive(Deserialize)]
struct Listed {
    sid: Option<String>,
    to: Option<String>,
    body: Option<String>,
    date_created: Option<String>,
}

impl Place {
    /// The ids of the messages that hold the session's key or token, newest first. Page by page on the provider's own
    /// origin, back to before the first try.
    pub async fn look(self, wanted: &Wanted<'_>) -> Result<Vec<String>, LookFailed> {
        let mut found = Vec::new();
        let mut url = self.provider.url.clone();
        url.query_pairs_mut().append_pair("To", wanted.to.as_e164()).append_pair("PageSize", PAGE_SIZE);
        for _ in 0..PAGES {
            let page = match self.page(url.clone()).await {
                Ok(page) => page,
                // Found is found, whatever the older pages are like; but what was not seen is not absent.
                Err(_) if !found.is_empty() => return Ok(found),
                Err(failed) => return Err(failed),
            };
            for message in &page.messages {
                if wanted.is_it(message) {
                    found.extend(message.sid.clone());
                }
            }
            let older = page.messages.iter().any(|message| message.is_before(wanted.since - CLOCKS_APART));
            match page.next_page_uri.filter(|next| !next.is_empty()) {
                Some(next) if !older => match next_page(&self.provider.url, &next) {
                    Ok(next) => url = next,
                    Err(_) if !found.is_empty() => return Ok(found),
                    Err(failed) => return Err(failed),
                },
                _ => return Ok(found),
            }
        }
        if found.is_empty() { Err(LookFailed(format!("it has more than {PAGES} pages"))) } else { Ok(found) }
    }

    async fn page(&self, url: Url) -> Result<Page, LookFailed> {
        // It asks for nothing to be done, so it needs no guard.
        let path = path_of(&url).map_err(next_page_failed)?;
        let request = self.provider.to(path, Guard::until(Instant::now()).no_body());
        let answer = self.provider.lines.ask(request, LARGEST_PAGE).await;
        let (head, body) = answer.map_err(|failed| LookFailed(failed.to_string()))?;
        if head.status.as_u16() != 200 {
            return Err(LookFailed(format!("the provider answers {}", head.status.as_u16())));
        }
        read_page(&body)
    }
}

/// The address of the next page, which is at the same origin as the list: the account's credentials go nowhere else,
/// whatever a page says.
fn next_page(list: &Url, next: &str) -> Result<Url, LookFailed> {
    let url = list.join(next).map_err(next_page_failed)?;
    if url.origin() == list.origin() {
        Ok(url)
    } else {
        Err(LookFailed("its next page is at another origin".to_owned()))
    }
}

fn next_page_failed(error: impl Display) -> LookFailed {
    LookFailed(format!("its next page: {error}"))
}

fn read_page(body: &[u8]) -> Result<Page, LookFailed> {
    serde_json::from_slice(body).map_err(|_| LookFailed("a page is not a list of messages".to_owned()))
}

/// Reads a page, looks for a text in it, and follows it, as a fuzzing target does. `list` is where the pages are.
#[cfg(fuzzing)]
pub fn page(list: &Url, body: &[u8]) {
    let Some(to) = PhoneNumber::from_e164("+11110000000") else { return };
    let (key, token, text) = (SessionKey::example(6), Token::example(), SmsText::from("Join".to_owned()));
    let since = OffsetDateTime::UNIX_EPOCH;
    let wanted = Wanted { to: &to, key: &key, token: &token, text: &text, since };
    let Ok(page) = read_page(body) else { return };
    for message in page.messages {
        let _ = (wanted.is_it(&message), message.is_before(since));
    }
    let next = page.next_page_uri.and_then(|next| next_page(list, &next).ok());
    if let Some(Ok(path)) = next.as_ref().map(path_of) {
        assert!(path.authority().is_none() && path.path().starts_with('/'), "{path}");
    }
}

impl Wanted<'_> {
    /// By the token, which no other text holds; else by the key, which a text from before the first try may hold as well.
    fn is_it(&self, message: &Listed) -> bool {
        let Some(body) = message.body.as_deref() else { return false };
        if message.to.as_deref().is_some_and(|to| to != self.to.as_e164()) {
            return false;
        }
        body.contains(self.token.as_str())
            || (self.is_by_key(body) && !message.is_before(self.since - CLOCKS_APART))
    }

    /// As a number of its own, unless the group's wording has it beside other digits.
    fn is_by_key(&self, body: &str) -> bool {
        let key = self.key.as_str();
        let stands_alone = holds_number(self.text.as_str(), key);
        holds_number(body, key) || (!stands_alone && body.contains(key))
    }
}

impl Listed {
    fn is_before(&self, moment: OffsetDateTime) -> bool {
        let created = self.date_created.as_deref();
        created.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok()).is_some_and(|at| at < moment)
    }
}

/// Whether the digits stand in the text as a number of their own, and not as a part of a longer one.
fn holds_number(text: &str, digits: &str) -> bool {
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    !digits.is_empty()
        && text.match_indices(digits).any(|(at, _)| {
            !is_digit(text[..at].chars().next_back()) && !is_digit(text[at + digits.len()..].chars().next())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    /// One text that is looked for, in this wording.
    struct Sought(PhoneNumber, SessionKey, Token, SmsText);

    impl Sought {
        fn in_the_words(text: &str) -> Self {
            let (to, key) = (PhoneNumber::from_e164("+12015550123"), SessionKey::parse("123456"));
            let token = Token::parse("abcdefghijklmnop").unwrap();
            Self(to.unwrap(), key.unwrap(), token, text.to_owned().into())
        }

        fn is_it(&self, message: &Listed) -> bool {
            let Self(to, key, token, text) = self;
            Wanted { to, key, token, text, since: datetime!(2026-11-24 12:00 UTC) }.is_it(message)
        }
    }

    fn usual() -> Sought {
        Sought::in_the_words("code 123456 https://x/s/abcdefghijklmnop")
    }

    fn listed(body: &str, date: &str) -> Listed {
        Listed {
            sid: Some("SM1".to_owned()),
            to: Some("+12015550123".to_owned()),
            body: Some(body.to_owned()),
            date_created: Some(date.to_owned()),
        }
    }

    #[test]
    fn a_page_leads_to_its_own_origin_only() {
        let list = Url::parse("https://api.x.example/2010-04-01/Accounts/AC1/Messages.json?To=1").unwrap();
        let next =
            |next: &str| next_page(&list, next).ok().map(|url| path_of(&url).map(|path| path.to_string()));
        for (given, path) in [
            (
                "/2010-04-01/Accounts/AC1/Messages.json?Page=1",
                "/2010-04-01/Accounts/AC1/Messages.json?Page=1",
            ),
            ("?Page=1", "/2010-04-01/Accounts/AC1/Messages.json?Page=1"),
            ("https://joe:pw@api.x.example/é{}|^?\"<#f", "/%C3%A9%7B%7D|^?%22%3C"),
        ] {
            assert_eq!(next(given).unwrap().unwrap(), path, "{given}");
        }
        for given in [
            "https://y.example/",
            "//y.example/",
            "http://api.x.example/",
            "https://api.x.example:1/",
            "data:x",
        ] {
            assert!(next(given).is_none(), "{given}");
        }
        assert!(next(&format!("/{}", "x".repeat(1 << 16))).unwrap().is_err(), "no URI is so long");
    }

    #[test]
    fn a_text_is_known_by_its_token_or_its_key() {
        let (now, long_ago) = ("Tue, 24 Nov 2026 12:00:01 +0000", "Mon, 23 Nov 2026 12:00:01 +0000");
        let wanted = usual();
        assert!(wanted.is_it(&listed("see https://x/s/abcdefghijklmnop", long_ago)));
        assert!(wanted.is_it(&listed("Sent from a trial - code 123456.", now)));
        assert!(wanted.is_it(&listed("123456", "no date at all")));
        assert!(!wanted.is_it(&listed("code 123456", long_ago)), "another session's, from before");
        for other in ["code 1234567", "0123456", "12345 6", "", "abcdefghijklmno"] {
            assert!(!wanted.is_it(&listed(other, now)), "{other}");
        }
        let elsewhere = Listed { to: Some("+12015550124".to_owned()), ..listed("123456", now) };
        assert!(!wanted.is_it(&elsewhere));
        let bare = Listed { to: None, date_created: None, ..listed("123456", now) };
        assert!(wanted.is_it(&bare));
        assert!(!wanted.is_it(&Listed { body: None, ..listed("", now) }));
    }

    #[test]
    fn a_key_that_the_wording_puts_beside_digits_is_found_there() {
        let beside = Sought::in_the_words("code 72123456");
        assert!(beside.is_it(&listed("code 72123456", "")) && !beside.is_it(&listed("code 72123457", "")));
        assert!(!usual().is_it(&listed("code 72123456", "")));
    }

    #[test]
    fn a_key_beside_letters_of_any_script_is_found() {
        assert!(holds_number("код123456é", "123456") && holds_number("x1234567 123456", "123456"));
        assert!(!holds_number("", "123456") && !holds_number("123456", ""));
    }
}
