//! The provider's list of texts: a look for one whose answer was lost, and a reading of all.

use super::{
    client::{ProviderPermit, path_of},
    metrics,
    write_guard::WriteGuard,
};
use crate::{
    masked::debug_shows,
    phone::PhoneNumber,
    session_key::{SessionKey, Token},
    sms_text::SmsText,
};
use serde::Deserialize;
use std::{fmt::Display, time::Instant};
use time::{Duration, OffsetDateTime, UtcOffset, format_description::well_known::Rfc2822};
use url::Url;

/// Messages on a page; the provider gives at most 1000.
const PAGE_SIZE: &str = "200";
/// Pages that are read at most: more texts than one number can have had during a session.
const PAGES: usize = 50;
/// A longer page does not come from a provider.
const LARGEST_PAGE: usize = 8 * 1024 * 1024;
/// How far the provider's clock and Postgres's may be apart.
const CLOCKS_APART: Duration = Duration::minutes(5);

/// A text to look for.
pub(crate) struct TextSearch<'a> {
    pub(crate) to: &'a PhoneNumber,
    pub(crate) key: &'a SessionKey,
    pub(crate) token: &'a Token,
    /// The whole text, as it was handed over.
    pub(crate) text: &'a SmsText,
    /// Before its first try.
    pub(crate) since: OffsetDateTime,
    /// Which other texts to the number are wanted too.
    pub(crate) any: Option<AnyText<'a>>,
}

debug_shows!(TextSearch<'_> { since });

/// Any text of these senders: the database has lost rows, and with them the key and the token of a text.
pub(crate) struct AnyText<'a> {
    pub(crate) since: OffsetDateTime,
    /// From numbers and messaging services.
    pub(crate) senders: Vec<&'a str>,
}

debug_shows!(AnyText<'_> { since });

/// The messages that a look found, newest first.
#[derive(Debug, Default)]
pub(crate) struct FoundTexts {
    /// With the session's key or token.
    pub(crate) own: Vec<FoundText>,
    /// The others, where [`TextSearch::any`] asks for them.
    pub(crate) others: Vec<FoundText>,
}

/// A message in the list that has an id.
pub(crate) struct FoundText {
    pub(crate) sid: String,
    /// With the link, so it is a secret.
    pub(crate) body: Option<String>,
}

debug_shows!(FoundText { sid });

/// The provider's list could not be read: nothing is known of the text.
#[derive(Debug, thiserror::Error)]
#[error("the provider's list cannot be read: {0}")]
pub(crate) struct LookError(String);

#[derive(Deserialize)]
struct MessagePage {
    messages: Vec<ListedMessage>,
    next_page_uri: Option<String>,
}

/// A message in the list; nearly every member may be null.
#[derive(Deserialize)]
pub(crate) struct ListedMessage {
    pub(crate) sid: Option<String>,
    pub(crate) to: Option<String>,
    from: Option<String>,
    messaging_service_sid: Option<String>,
    /// `inbound`, or one of several kinds of `outbound`.
    direction: Option<String>,
    body: Option<String>,
    date_created: Option<String>,
    pub(crate) status: Option<String>,
    /// An integer, as far as the provider documents it.
    #[serde(default)]
    error_code: serde_json::Value,
}

debug_shows!(ListedMessage { status });

/// The provider's list of all texts, from the newest back to a moment.
pub(crate) struct TextList {
    permit: ProviderPermit,
    next: Option<Url>,
    since: OffsetDateTime,
}

debug_shows!(TextList { since });

impl TextList {
    /// The texts of the next page; `None` after the last.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<ListedMessage>>, LookError> {
        let Some(url) = self.next.take() else { return Ok(None) };
        let page = self.permit.page(url).await?;
        let is_last = page.messages.iter().any(|message| message.is_before(self.since));
        if let Some(next) = page.next_page_uri.filter(|next| !next.is_empty() && !is_last) {
            self.next = Some(next_page(&self.permit.provider.url, &next)?);
        }
        Ok(Some(page.messages))
    }
}

impl ProviderPermit {
    /// Looks for a text. Reads page by page on the provider's own origin, back to before the first try.
    pub(crate) async fn look(self, search: &TextSearch<'_>) -> Result<FoundTexts, LookError> {
        let found = self.find(search).await;
        self.provider.health.looked(&found);
        found
    }

    async fn find(&self, search: &TextSearch<'_>) -> Result<FoundTexts, LookError> {
        let mut found = FoundTexts::default();
        let earliest = search.any.as_ref().map_or(search.since, |any| any.since.min(search.since));
        let mut url = self.provider.url.clone();
        url.query_pairs_mut().append_pair("To", search.to.as_e164()).append_pair("PageSize", PAGE_SIZE);
        for _ in 0..PAGES {
            let page = match self.page(url.clone()).await {
                Ok(page) => page,
                // An unreadable older page does not matter once a text was found; before that, it proves nothing.
                Err(_) if !found.own.is_empty() => return Ok(found),
                Err(failed) => return Err(failed),
            };
            let older = page.messages.iter().any(|message| message.is_before(earliest - CLOCKS_APART));
            for message in page.messages {
                if search.matches(&message) {
                    found.own.extend(message.into_found());
                } else if search.any.as_ref().is_some_and(|any| any.matches(&message, search.to)) {
                    found.others.extend(message.into_found());
                }
            }
            match page.next_page_uri.filter(|next| !next.is_empty()) {
                Some(next) if !older => match next_page(&self.provider.url, &next) {
                    Ok(next) => url = next,
                    Err(_) if !found.own.is_empty() => return Ok(found),
                    Err(failed) => return Err(failed),
                },
                _ => return Ok(found),
            }
        }
        if found.own.is_empty() {
            Err(LookError(format!("it has more than {PAGES} pages")))
        } else {
            Ok(found)
        }
    }

    /// All texts that were made since a moment.
    pub(crate) fn list(self, since: OffsetDateTime) -> TextList {
        let mut url = self.provider.url.clone();
        // A text is sent after it was made, so none is missing that was made on the day.
        let day = since.to_offset(UtcOffset::UTC).date().to_string();
        url.query_pairs_mut().append_pair("DateSent>", &day).append_pair("PageSize", PAGE_SIZE);
        TextList { permit: self, next: Some(url), since }
    }

    async fn page(&self, url: Url) -> Result<MessagePage, LookError> {
        // It changes nothing, so it needs no guard.
        let path = path_of(&url).map_err(next_page_failed)?;
        let request = self.provider.get(path, WriteGuard::until(Instant::now()).no_body());
        let answer = self.provider.connections.request(request, LARGEST_PAGE).await;
        metrics::answered(answer.as_ref().map(|(head, _)| head.status.as_u16()));
        let (head, body) = answer.map_err(|error| LookError(error.to_string()))?;
        if head.status.as_u16() != 200 {
            return Err(LookError(format!("the provider answers {}", head.status.as_u16())));
        }
        read_page(&body)
    }
}

/// The address of the next page. It must have the list's origin: the account's credentials go nowhere else, no matter what
/// a page contains.
fn next_page(list: &Url, next: &str) -> Result<Url, LookError> {
    let url = list.join(next).map_err(next_page_failed)?;
    if url.origin() == list.origin() {
        Ok(url)
    } else {
        Err(LookError("its next page is at another origin".to_owned()))
    }
}

fn next_page_failed(error: impl Display) -> LookError {
    LookError(format!("its next page: {error}"))
}

fn read_page(body: &[u8]) -> Result<MessagePage, LookError> {
    serde_json::from_slice(body).map_err(|_| LookError("a page is not a list of messages".to_owned()))
}

/// Reads a page, looks for a text in it, and follows it, for a fuzzing target. `list` is the first page's address.
pub(super) fn page(list: &Url, body: &[u8]) {
    let Some(to) = PhoneNumber::from_e164("+11110000000") else { return };
    let (key, token, text) = (SessionKey::example(6), Token::example(), SmsText::from("Join".to_owned()));
    let since = OffsetDateTime::UNIX_EPOCH;
    let any = Some(AnyText { since, senders: vec!["+15005550006"] });
    let search = TextSearch { to: &to, key: &key, token: &token, text: &text, since, any };
    let Ok(page) = read_page(body) else { return };
    for message in page.messages {
        let any = search.any.as_ref().map(|any| any.matches(&message, &to));
        let _ = (search.matches(&message), any, message.is_before(since));
    }
    let next = page.next_page_uri.and_then(|next| next_page(list, &next).ok());
    if let Some(Ok(path)) = next.as_ref().map(path_of) {
        assert!(path.authority().is_none() && path.path().starts_with('/'), "{path}");
    }
}

impl TextSearch<'_> {
    /// By the token, which no other text holds; else by the key, which an older text may hold as well.
    fn matches(&self, message: &ListedMessage) -> bool {
        let Some(body) = message.body.as_deref() else { return false };
        if message.to.as_deref().is_some_and(|to| to != self.to.as_e164()) {
            return false;
        }
        body.contains(self.token.as_str())
            || (self.holds_key(body) && !message.is_before(self.since - CLOCKS_APART))
    }

    /// The key as a whole number, unless the group's wording puts it beside other digits.
    fn holds_key(&self, body: &str) -> bool {
        let key = self.key.as_str();
        let is_whole = holds_number(self.text.as_str(), key);
        holds_number(body, key) || (!is_whole && body.contains(key))
    }
}

impl AnyText<'_> {
    fn matches(&self, message: &ListedMessage, to: &PhoneNumber) -> bool {
        message.to.as_deref().is_none_or(|other| other == to.as_e164())
            && message.may_be_of(&self.senders)
            && !message.is_before(self.since - CLOCKS_APART)
    }
}

impl ListedMessage {
    /// When the provider took it; `None` if the list does not say.
    pub(crate) fn created(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(self.date_created.as_deref()?, &Rfc2822).ok()
    }

    fn into_found(self) -> Option<FoundText> {
        Some(FoundText { sid: self.sid?, body: self.body })
    }

    fn is_before(&self, moment: OffsetDateTime) -> bool {
        self.created().is_some_and(|at| at < moment)
    }

    /// The provider's code for why it did not arrive.
    pub(crate) fn error_code(&self) -> Option<i32> {
        i32::try_from(self.error_code.as_i64()?).ok()
    }

    /// Whether one of these senders may have sent it: From numbers and messaging services.
    pub(crate) fn may_be_of(&self, senders: &[&str]) -> bool {
        let is_ours = |sender: &Option<String>| sender.as_deref().is_some_and(|own| senders.contains(&own));
        let names_a_sender = self.from.is_some() || self.messaging_service_sid.is_some();
        !self.direction.as_deref().is_some_and(|direction| direction.starts_with("inbound"))
            && (!names_a_sender || is_ours(&self.from) || is_ours(&self.messaging_service_sid))
    }

    /// Whether it is the text with this token, or with this key as a whole number.
    pub(crate) fn holds(&self, token: &str, key: Option<&str>) -> bool {
        let Some(body) = self.body.as_deref() else { return false };
        body.contains(token) || key.is_some_and(|key| holds_number(body, key))
    }
}

/// Whether the text holds the digits as a whole number, and not only as a part of a longer one.
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

    /// A text to look for, with its own values.
    struct OwnedSearch(PhoneNumber, SessionKey, Token, SmsText);

    impl OwnedSearch {
        fn of(text: &str) -> Self {
            let (to, key) = (PhoneNumber::from_e164("+12015550123"), SessionKey::parse("123456"));
            let token = Token::parse("abcdefghijklmnop").unwrap();
            Self(to.unwrap(), key.unwrap(), token, text.to_owned().into())
        }

        fn matches(&self, message: &ListedMessage) -> bool {
            let Self(to, key, token, text) = self;
            TextSearch { to, key, token, text, since: datetime!(2026-11-24 12:00 UTC), any: None }
                .matches(message)
        }
    }

    fn default_search() -> OwnedSearch {
        OwnedSearch::of("code 123456 https://x/s/abcdefghijklmnop")
    }

    fn listed(body: &str, date: &str) -> ListedMessage {
        ListedMessage {
            sid: Some("SM1".to_owned()),
            to: Some("+12015550123".to_owned()),
            from: Some("+15005550006".to_owned()),
            messaging_service_sid: None,
            direction: Some("outbound-api".to_owned()),
            body: Some(body.to_owned()),
            date_created: Some(date.to_owned()),
            status: None,
            error_code: serde_json::Value::Null,
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
        assert!(next(&format!("/{}", "x".repeat(1 << 16))).unwrap().is_err(), "a URI cannot be so long");
    }

    #[test]
    fn a_text_is_found_by_its_token_or_its_key() {
        let (now, long_ago) = ("Tue, 24 Nov 2026 12:00:01 +0000", "Mon, 23 Nov 2026 12:00:01 +0000");
        let search = default_search();
        assert!(search.matches(&listed("see https://x/s/abcdefghijklmnop", long_ago)));
        assert!(search.matches(&listed("Sent from a trial - code 123456.", now)));
        assert!(search.matches(&listed("123456", "no date at all")));
        assert!(!search.matches(&listed("code 123456", long_ago)), "an older text, of another session");
        for other in ["code 1234567", "0123456", "12345 6", "", "abcdefghijklmno"] {
            assert!(!search.matches(&listed(other, now)), "{other}");
        }
        let elsewhere = ListedMessage { to: Some("+12015550124".to_owned()), ..listed("123456", now) };
        assert!(!search.matches(&elsewhere));
        let bare = ListedMessage { to: None, date_created: None, ..listed("123456", now) };
        assert!(search.matches(&bare));
        assert!(!search.matches(&ListedMessage { body: None, ..listed("", now) }));
    }

    #[test]
    fn after_a_loss_any_text_of_our_senders_to_the_number_counts() {
        let to = PhoneNumber::from_e164("+12015550123").unwrap();
        let any = AnyText { since: datetime!(2026-11-24 12:00 UTC), senders: vec!["+15005550006", "MG1"] };
        let now = || listed("anything", "Tue, 24 Nov 2026 12:00:01 +0000");
        assert!(any.matches(&now(), &to));
        assert!(any.matches(&ListedMessage { body: None, date_created: None, ..now() }, &to));
        let foreign = || ListedMessage { from: Some("+15005550007".to_owned()), ..now() };
        assert!(!any.matches(&foreign(), &to));
        let service = Some("MG1".to_owned());
        assert!(any.matches(&ListedMessage { messaging_service_sid: service, ..foreign() }, &to));
        assert!(any.matches(&ListedMessage { from: None, ..now() }, &to), "of an unknown sender");
        assert!(!any.matches(&ListedMessage { direction: Some("inbound".to_owned()), ..now() }, &to));
        assert!(!any.matches(&listed("", "Mon, 23 Nov 2026 12:00:01 +0000"), &to), "an older text");
        assert!(!any.matches(&now(), &PhoneNumber::from_e164("+12015550124").unwrap()));
    }

    #[test]
    fn a_key_that_the_wording_puts_beside_digits_is_found_there() {
        let beside = OwnedSearch::of("code 72123456");
        assert!(
            beside.matches(&listed("code 72123456", "")) && !beside.matches(&listed("code 72123457", ""))
        );
        assert!(!default_search().matches(&listed("code 72123456", "")));
    }

    #[test]
    fn a_key_beside_letters_of_any_script_is_found() {
        assert!(holds_number("код123456é", "123456") && holds_number("x1234567 123456", "123456"));
        assert!(!holds_number("", "123456") && !holds_number("123456", ""));
    }
}
