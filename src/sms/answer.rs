//! What the provider's answer to a create means (contract, section 6; codes from the provider's documentation,
//! <https://www.twilio.com/docs/api/errors>). Decided by code before status; pure, and tested as a table.

use crate::refusal::{Code, MENDED_AFTER, Refusal};
use serde::Deserialize;
use serde_json::Value;
use sms_provider::codes::{self, ErrorCode};
use std::time::Duration;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

/// Seconds: a time that no session outlasts.
const LONGEST: f64 = 1e9;

/// What is known after one try to hand over a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Accepted, under this id.
    Accepted { sid: String },
    /// Refused for good: surely no text.
    Refused(Refusal),
    /// Not accepted now; another try may succeed.
    Later { retry_after: Option<Duration>, why: Later },
    /// A text may have gone out.
    PerhapsSent { why: String },
    /// Not even written, as the right to was over.
    Withheld,
}

/// Why a text was not accepted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    Unreachable,
    Throttled,
    /// The operator's account: wrong credentials, no funds, suspended. Nothing that the sender can mend.
    Account {
        provider_code: Option<ErrorCode>,
    },
}

#[derive(Deserialize)]
struct Created {
    sid: Option<String>,
}

#[derive(Deserialize)]
struct Fault {
    code: Option<Value>,
}

impl Fault {
    /// A number, or a string of digits. Any other value is read as a missing code.
    fn code(&self) -> Option<ErrorCode> {
        match self.code.as_ref()? {
            Value::Number(number) => number.as_i64(),
            Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        }
    }
}

/// Reads the answer to a create.
pub fn read(status: u16, retry_after: Option<&str>, body: &[u8]) -> Answer {
    if (200..300).contains(&status) {
        let sid = serde_json::from_slice::<Created>(body).ok().and_then(|created| created.sid);
        return match sid.filter(|sid| is_sid(sid)) {
            Some(sid) => Answer::Accepted { sid },
            None => {
                Answer::PerhapsSent { why: format!("the provider answered {status} without a message id") }
            }
        };
    }
    let code = serde_json::from_slice::<Fault>(body).ok().and_then(|fault| fault.code());
    let retry_after = retry_after.and_then(seconds);
    let refused = |by: Code, message: &str| Answer::Refused(Refusal::new(by, message).provider_code(code));
    let not_taken = || refused(Code::ProviderRejected, "the provider refused the text");
    match (code.and_then(class), status) {
        // Whatever its code: a server may fail after it took the text, a proxy may give up on a request that went
        // through (408), and a redirect says nothing of the text.
        (_, 500.. | 300..400 | 408) | (Some(Class::Unsure), _) => perhaps(status, code),
        (Some(Class::Throttled), _) => Answer::Later { retry_after, why: Later::Throttled },
        (Some(Class::DailyLimit), _) => refused(
            Code::ProviderUnavailable,
            "the provider's daily limit is reached; it takes no more texts today",
        ),
        (Some(Class::Number), _) => number("is not one that can take a text", code),
        (Some(Class::OptedOut), _) => Answer::Refused(
            Refusal::new(Code::OptedOut, "the number has opted out of texts")
                .provider_code(code)
                .field("smsPhone"),
        ),
        (Some(Class::NotAllowed), _) => Answer::Refused(
            Refusal::new(Code::PhoneNotAllowed, "the provider does not text this number")
                .provider_code(code)
                .field("smsPhone"),
        ),
        (Some(Class::Sender), _) => Answer::Refused(
            Refusal::new(
                Code::ProviderMisconfigured,
                "the provider refuses the group's sender; the operator must mend it",
            )
            .provider_code(code)
            .retry_after(retry_after.unwrap_or_default().max(MENDED_AFTER)),
        ),
        // Before the status: the text is at fault, also where the provider answers 401 or 403.
        (Some(Class::Text), _) => not_taken(),
        (Some(Class::Account), _) | (_, 401 | 403) => {
            Answer::Later { retry_after, why: Later::Account { provider_code: code } }
        }
        (_, 429) => Answer::Later { retry_after, why: Later::Throttled },
        (_, 400..=499) => not_taken(),
        _ => perhaps(status, code),
    }
}

/// What a code of the provider's is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The number cannot take a text.
    Number,
    OptedOut,
    /// The number may not be texted from this account or this sender.
    NotAllowed,
    /// The text or the request.
    Text,
    /// The operator's account.
    Account,
    /// The group's sender.
    Sender,
    Throttled,
    DailyLimit,
    /// The text may have been accepted.
    Unsure,
}

/// `None` for a code that has no class here: then the status decides.
fn class(code: ErrorCode) -> Option<Class> {
    Some(match code {
        codes::TO_INVALID
        | codes::TO_NOT_MOBILE
        | codes::NUMBER_INVALID
        | codes::HANDSET_UNKNOWN
        | codes::CARRIER_UNREACHABLE => Class::Number,
        codes::TO_UNSUBSCRIBED => Class::OptedOut,
        codes::REGION_NOT_ENABLED
        | codes::TO_NOT_VERIFIED
        | codes::TO_NOT_REACHABLE_FROM
        | codes::TO_IS_LANDLINE
        | codes::MESSAGE_BLOCKED => Class::NotAllowed,
        codes::BODY_MISSING | codes::TO_MISSING | codes::BODY_TOO_LONG | codes::MESSAGE_FILTERED => {
            Class::Text
        }
        codes::AUTHENTICATION_FAILED
        | codes::FORBIDDEN
        | codes::NOT_FOUND
        | codes::ACCOUNT_NOT_ACTIVE
        | codes::ACCOUNT_SUSPENDED
        | codes::SENDER_NOT_REGISTERED
        | codes::TOLL_FREE_NOT_VERIFIED
        | codes::CAMPAIGN_SUSPENDED
        | codes::NUMBER_NOT_REGISTERED => Class::Account,
        codes::FROM_INVALID
        | codes::FROM_CANNOT_SEND
        | codes::FROM_NOT_OF_ACCOUNT
        | codes::FROM_NOT_SMS_CAPABLE => Class::Sender,
        codes::TOO_MANY_REQUESTS
        | codes::FROM_QUEUE_FULL
        | codes::QUEUE_OVERFLOW
        | codes::CAMPAIGN_RATE_EXCEEDED
        | codes::RATE_EXCEEDED => Class::Throttled,
        codes::DAILY_LIMIT_EXCEEDED => Class::DailyLimit,
        codes::INTERNAL_SERVER_ERROR | codes::SERVICE_UNAVAILABLE => Class::Unsure,
        _ => return None,
    })
}

fn perhaps(status: u16, code: Option<ErrorCode>) -> Answer {
    let code = code.map(|code| format!(", code {code}")).unwrap_or_default();
    Answer::PerhapsSent { why: format!("the provider answered {status}{code}") }
}

fn number(what: &str, code: Option<ErrorCode>) -> Answer {
    let message = format!("the provider says that the number {what}");
    Answer::Refused(Refusal::new(Code::PhoneInvalid, message).provider_code(code).field("smsPhone"))
}

/// `SM` or `MM` and 32 hex digits at Twilio; others differ, so anything short and plain will do.
fn is_sid(sid: &str) -> bool {
    (1..=64).contains(&sid.len()) && sid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn seconds(header: &str) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<f64>() {
        return (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(LONGEST)));
    }
    let at = OffsetDateTime::parse(header, &Rfc2822).ok()?;
    Some((at - OffsetDateTime::now_utc()).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, code: i64) -> Answer {
        read(status, None, format!(r#"{{"code":{code},"message":"x","status":{status}}}"#).as_bytes())
    }

    fn refused_as(answer: &Answer) -> Code {
        let Answer::Refused(refusal) = answer else { panic!("{answer:?}") };
        refusal.code
    }

    #[test]
    fn a_sid_is_what_makes_it_sent() {
        let sid = "SM0123456789abcdef0123456789abcdef";
        let body = format!(r#"{{"sid":"{sid}","new":{{}}}}"#);
        assert_eq!(read(201, None, body.as_bytes()), Answer::Accepted { sid: sid.into() });
        for body in
            ["", "<html>", "{}", r#"{"sid":null}"#, r#"{"sid":""}"#, r#"{"sid":"a b"}"#, r#"{"sid":1}"#]
        {
            assert!(matches!(read(200, None, body.as_bytes()), Answer::PerhapsSent { .. }), "{body}");
        }
    }

    #[test]
    fn codes_decide_before_the_status() {
        for (codes, code) in [
            (&[21_211, 21_614, 21_217, 30_005, 30_006][..], Code::PhoneInvalid),
            (&[21_610], Code::OptedOut),
            (&[21_408, 21_608, 21_612, 21_635, 30_004], Code::PhoneNotAllowed),
            (&[21_602, 21_604, 21_617, 30_007, 99_999], Code::ProviderRejected),
            (&[21_212, 21_606, 21_659, 21_661], Code::ProviderMisconfigured),
            (&[63_038], Code::ProviderUnavailable),
        ] {
            for provider in codes {
                let answer = fault(400, *provider);
                assert_eq!(refused_as(&answer), code, "{provider}");
                let Answer::Refused(refusal) = answer else { unreachable!() };
                assert_eq!(refusal.provider_code, Some(*provider));
            }
        }
        assert_eq!(refused_as(&fault(429, 63_038)), Code::ProviderUnavailable);
        for transient in [20_429, 21_611, 30_001, 30_022, 63_017] {
            assert!(
                matches!(fault(400, transient), Answer::Later { why: Later::Throttled, .. }),
                "{transient}"
            );
        }
        for account in [20_003, 20_403, 20_404, 10_001, 30_002, 30_018, 30_032, 30_033, 30_034] {
            assert!(
                matches!(fault(400, account), Answer::Later { why: Later::Account { .. }, .. }),
                "{account}"
            );
        }
        for unsure in [20_500, 20_503] {
            assert!(matches!(fault(400, unsure), Answer::PerhapsSent { .. }), "{unsure}");
        }
    }

    #[test]
    fn a_code_is_a_number_or_a_string_of_digits() {
        let coded = |code: &str| read(400, None, format!(r#"{{"code":{code},"message":"x"}}"#).as_bytes());
        for code in ["21211", r#""21211""#] {
            assert_eq!(refused_as(&coded(code)), Code::PhoneInvalid, "{code}");
            let Answer::Refused(refusal) = coded(code) else { unreachable!() };
            assert_eq!(refusal.provider_code, Some(21_211), "{code}");
        }
        assert!(matches!(coded(r#""20429""#), Answer::Later { why: Later::Throttled, .. }));
        assert_eq!(refused_as(&coded(r#""63038""#)), Code::ProviderUnavailable);
        for code in [
            "null",
            "true",
            "[21211]",
            r#""""#,
            r#"" 21211""#,
            r#""x21211""#,
            r#""99999999999999999999""#,
            "1.5",
        ] {
            let Answer::Refused(refusal) = coded(code) else { panic!("{code}") };
            assert_eq!((refusal.code, refusal.provider_code), (Code::ProviderRejected, None), "{code}");
        }
    }

    #[test]
    fn a_text_at_fault_is_refused_under_any_status_of_the_client() {
        for (status, code) in [(401, 21_602), (403, 30_007), (429, 21_617), (404, 21_604)] {
            assert_eq!(refused_as(&fault(status, code)), Code::ProviderRejected, "{status} {code}");
        }
    }

    #[test]
    fn what_an_operator_has_to_mend_is_asked_for_again_after_a_minute_at_the_least() {
        let after = |header| match read(400, header, br#"{"code":21606}"#) {
            Answer::Refused(refusal) => refusal.retry_after_seconds,
            other => panic!("{other:?}"),
        };
        for (header, seconds) in [(None, 60), (Some("5"), 60), (Some("x"), 60), (Some("300"), 300)] {
            assert_eq!(after(header), Some(seconds), "{header:?}");
        }
        // The account's owner is waited for as the provider says.
        let account = read(401, Some("7"), b"");
        let waits = Some(Duration::from_secs(7));
        assert!(matches!(account, Answer::Later { retry_after, .. } if retry_after == waits), "{account:?}");
    }

    #[test]
    fn without_a_code_the_status_decides() {
        let plain = |status| read(status, None, b"<html>nothing to see</html>");
        assert!(matches!(plain(401), Answer::Later { why: Later::Account { .. }, .. }));
        assert!(matches!(plain(403), Answer::Later { why: Later::Account { .. }, .. }));
        assert!(matches!(plain(429), Answer::Later { why: Later::Throttled, .. }));
        assert_eq!(refused_as(&plain(400)), Code::ProviderRejected);
        assert_eq!(refused_as(&plain(404)), Code::ProviderRejected);
        for unsure in [100, 301, 302, 307, 408, 500, 502, 503, 504, 599] {
            assert!(matches!(plain(unsure), Answer::PerhapsSent { .. }), "{unsure}");
        }
        for (status, code) in [(500, 21_211), (503, 20_429), (302, 21_211), (502, 63_038), (408, 21_211)] {
            assert!(matches!(fault(status, code), Answer::PerhapsSent { .. }), "{status} {code}");
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_or_as_a_date() {
        let after = |header| match read(429, Some(header), b"") {
            Answer::Later { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after(" 0.5 "), Some(Duration::from_millis(500)));
        assert_eq!(after("100000"), Some(Duration::from_secs(100_000)));
        assert_eq!(after("1e99"), Some(Duration::from_secs(1_000_000_000)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = OffsetDateTime::now_utc() + Duration::from_mins(1);
        let soon = soon.format(&Rfc2822).unwrap().replace("+0000", "GMT");
        assert!(after(&soon).is_some_and(|after| (58..=60).contains(&after.as_secs())), "{soon}");
        for none in ["-1", "soon", "NaN", ""] {
            assert_eq!(after(none), None, "{none}");
        }
    }
}
