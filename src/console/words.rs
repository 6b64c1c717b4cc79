//! How values are written on the pages. maud escapes what is markup.

use crate::{db::NotRead, invite::reply::to_the_second, output::plain};
use maud::{Markup, html};
use std::time::Duration;
use time::OffsetDateTime;

/// Characters of a name, of a text in a table, and of one that a page is about.
pub(super) const NAME: usize = 60;
pub(super) const IN_A_TABLE: usize = 120;
pub(super) const IN_FULL: usize = 2_000;

/// A text that somebody else wrote: characters that control or are not seen are escapes, and it is cut where it is longer than `most` characters, or
/// takes twice as many bytes as markup. So the size of a page is bounded, whatever the texts are.
pub(super) fn text(text: &str, most: usize) -> String {
    let plain = plain(text);
    let mut bytes = 0;
    let fits = |(n, (_, c)): &(usize, (usize, char))| {
        bytes += match c {
            '&' => 5,
            '<' | '>' => 4,
            '"' => 6,
            c => c.len_utf8(),
        };
        *n < most && bytes <= 2 * most
    };
    let kept = plain.char_indices().enumerate().take_while(fits).count();
    let Some((cut, _)) = plain.char_indices().nth(kept) else { return plain };
    format!("{}… ({} characters more)", &plain[..cut], number(plain.chars().count() - kept))
}

/// With commas between the thousands.
pub(super) fn number(n: impl TryInto<i64>) -> String {
    let n = n.try_into().unwrap_or(i64::MAX);
    let digits = n.unsigned_abs().to_string();
    let mut written = if n < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            written.push(',');
        }
        written.push(digit);
    }
    written
}

/// A moment, in UTC.
pub(super) fn moment(at: OffsetDateTime) -> Markup {
    let written = to_the_second(at);
    html! { time datetime=(written) { (written) } }
}

/// A moment, or a dash.
pub(super) fn maybe_moment(at: Option<OffsetDateTime>) -> Markup {
    html! { @match at { Some(at) => (moment(at)), None => "–" } }
}

/// Whole seconds, as `2h 5m 3s`.
pub(super) fn span(seconds: f64) -> String {
    let span = Duration::try_from_secs_f64(seconds.max(0.0).floor()).unwrap_or_default();
    humantime::format_duration(span).to_string()
}

/// What a part of a page says whose content was not read.
pub(super) fn not_read(why: NotRead) -> Markup {
    html! {
        p.notice role="status" {
            "Not read: " (why) ". "
            @match why {
                NotRead::TooSlow => {
                    "The page gives up then, so that invites have the database. If the overview names a lock or another problem \
                     of the database, that is the cause. Otherwise look again in a moment, or narrow the page to a group or a \
                     shorter time."
                }
                NotRead::Busy => "Look again in a moment.",
                NotRead::Away => {
                    "The rights are those of deploy/postgres/console-rights.sql. With the gateway's own DATABASE_URL, "
                    code { "session-invite doctor" }
                    " says whether the database is reached."
                }
                NotRead::Failed => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_named_as_what_it_is() {
        assert!(not_read(NotRead::Busy).into_string().contains("was reading other pages"));
        assert!(!not_read(NotRead::Busy).into_string().contains("database"));
        assert!(not_read(NotRead::Away).into_string().contains("deploy/postgres/console-rights.sql"));
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(text("abc", 3), "abc");
        assert_eq!(text(&"é".repeat(1_234), 10), format!("{}… (1,224 characters more)", "é".repeat(10)));
        assert_eq!(text(&"\"".repeat(7), 10), "\"\"\"… (4 characters more)");
        assert_eq!(text("a\u{202e}b\0", 20), "a\\u{202e}b\\u{0}");
    }

    #[test]
    fn thousands_have_commas() {
        for (n, written) in [(0, "0"), (999, "999"), (1_000, "1,000"), (-1_234_567, "-1,234,567")] {
            assert_eq!(number(n), written);
        }
    }
}
