//! The options of a group (`groups add` and `groups set`), and how each is written.

use super::template::{DEFAULT_TEXT, JoinUrl, Wording};
use crate::{
    phone::{PhoneCheck, is_region},
    rate_limit::RateLimit,
};
use std::{ops::RangeInclusive, str::FromStr, time::Duration};

/// `--per-number` and `--per-country`: `10/1h`, or `0` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OptionalLimit(pub Option<RateLimit>);

impl FromStr for OptionalLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(None));
        }
        let wrong = || "write a count and a window, such as 10/1h, or 0 for no limit".to_owned();
        let (count, window) = text.split_once('/').ok_or_else(wrong)?;
        let count = count.parse().ok().filter(|count| (1..=1_000_000).contains(count)).ok_or_else(wrong)?;
        let window = seconds(window, 1..=30 * 86_400)?;
        Ok(Self(Some(RateLimit { count, window })))
    }
}

/// A group's options, with the contract's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOptions {
    /// The region that a number without a country code is read in, as CLDR writes it (`US`).
    pub region: String,
    /// How strictly phone numbers are checked.
    pub phone_check: PhoneCheck,
    /// The regions that the group texts; empty for any.
    pub countries: Vec<String>,
    /// Digits in a session key, 4 … 9.
    pub key_length: u8,
    /// The text's template.
    pub template: String,
    /// The link's template; `None` for `{PUBLIC_URL}/s/{token}`.
    pub link: Option<String>,
    /// The number that the group's texts come from, if it is not `SMS_FROM`.
    pub sms_from: Option<String>,
    /// How long after its invite a session expires that no agent has joined.
    pub session_ttl: Duration,
    /// How long after the first join a session ends.
    pub session_max: Duration,
    /// How long the key of an ended session is not used again.
    pub key_rest: Duration,
    /// Texts to one number; `None` for no limit.
    pub per_number: Option<RateLimit>,
    /// Texts to any one country; `None` for no limit.
    pub per_country: Option<RateLimit>,
    /// Invites in a minute; `None` for no limit.
    pub per_minute: Option<u32>,
    /// The template of the URL that the visitor's page leads to.
    pub join_url: Option<String>,
    /// The name that visitors see.
    pub name: Option<String>,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            region: "US".to_owned(),
            phone_check: PhoneCheck::Possible,
            countries: Vec::new(),
            key_length: 6,
            template: DEFAULT_TEXT.to_owned(),
            link: None,
            sms_from: None,
            session_ttl: Duration::from_mins(10),
            session_max: Duration::from_hours(12),
            key_rest: Duration::from_hours(24),
            per_number: Some(RateLimit { count: 10, window: Duration::from_hours(1) }),
            per_country: None,
            per_minute: None,
            join_url: None,
            name: None,
        }
    }
}

/// A duration in whole seconds, as humantime writes it (`10m`), within the range.
pub(crate) fn seconds(text: &str, range: RangeInclusive<u64>) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| "write a duration, such as 90s, 10m or 24h".to_owned())?;
    if duration.subsec_nanos() != 0 || !range.contains(&duration.as_secs()) {
        let [least, most] =
            [range.start(), range.end()].map(|&s| humantime::format_duration(Duration::from_secs(s)));
        return Err(format!("must be whole seconds, from {least} to {most}"));
    }
    Ok(duration)
}

/// A region with a numbering plan, as CLDR writes it, in any case.
pub(crate) fn region(text: &str) -> Result<String, String> {
    let region = text.trim().to_ascii_uppercase();
    if is_region(&region) {
        Ok(region)
    } else {
        Err("a region is two letters of a country, such as US or DE".to_owned())
    }
}

/// Regions separated by commas; none for an empty text. Repeats are dropped.
pub(crate) fn countries(text: &str) -> Result<Vec<String>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut regions = text.split(',').map(region).collect::<Result<Vec<_>, _>>()?;
    regions.sort();
    regions.dedup();
    Ok(regions)
}

/// A From number in E.164.
pub(crate) fn sms_from(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix('+').unwrap_or_default();
    if (7..=15).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0')
    {
        Ok(text.to_owned())
    } else {
        Err("write the number in E.164, such as +15550001111".to_owned())
    }
}

/// A text's template that is right with some link at least.
pub(crate) fn template(text: &str) -> Result<String, String> {
    Wording::check_text(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// A link's template that is right with some text at least.
pub(crate) fn link(text: &str) -> Result<String, String> {
    Wording::check_link(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// The template of an absolute http(s) URL.
pub(crate) fn join_url(text: &str) -> Result<String, String> {
    JoinUrl::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// The name that visitors see.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if (1..=80).contains(&text.chars().count()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 80 characters, on one line".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_count_and_a_window_or_nothing() {
        let limit =
            |count, secs| Ok(OptionalLimit(Some(RateLimit { count, window: Duration::from_secs(secs) })));
        for (text, expected) in [
            ("0", Ok(OptionalLimit(None))),
            ("10/1h", limit(10, 3600)),
            ("1/90s", limit(1, 90)),
            ("2/1day", limit(2, 86_400)),
        ] {
            assert_eq!(text.parse::<OptionalLimit>(), expected, "{text}");
        }
        for text in ["", "10", "0/1h", "-1/1h", "10/", "10/0s", "10/500ms", "10/31days", "ten/1h", "10/1h/2"]
        {
            assert!(text.parse::<OptionalLimit>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_limit_is_displayed_in_the_form_that_is_read() {
        assert_eq!("10/1h".parse::<OptionalLimit>().unwrap().0.unwrap().to_string(), "10/1h");
    }

    #[test]
    fn countries_are_regions_in_any_case() {
        assert_eq!(countries("us, CA,us"), Ok(vec!["CA".to_owned(), "US".to_owned()]));
        assert_eq!(countries(""), Ok(vec![]));
        assert!(countries("US,").is_err() && countries("USA").is_err() && countries("ZZ").is_err());
    }
}
