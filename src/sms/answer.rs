//! What the provider's answer to a create means (contract, section 6; codes from the provider's documentation,
//! <https://www.twilio.com/docs/api/errors>). The code decides before the status. Pure, and tested as a table.

use crate::refusal::{Code, MISCONFIGURED_RETRY_AFTER, Refusal};
use serde::Deserialize;
use serde_json::Value;
use sms_provider::codes::{self, ErrorCode};
use std::time::Duration;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

/// The longest `Retry-After` that is taken, in seconds: longer than any session lasts.
const LONGEST_RETRY_AFTER: f64 = 1e9;

/// What is known after one try to hand over a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TryResult {
    /// The provider has the text.
    Accepted {
        /// The provider's id of the text.
        sid: String,
    },
    /// Refused for good: surely no text.
    Refused(Refusal),
    /// Not accepted now; another try may succeed.
    Later {
        /// The HTTP status of its answer; `None` if there was none.
        status: Option<u16>,
        /// How long the provider wants no other try, if it named a time.
        retry_after: Option<Duration>,
        /// Why it did not accept the text.
        why: RetryReason,
    },
    /// A text may have gone out.
    PerhapsSent {
        /// What happened, for the log and the row.
        why: String,
    },
    /// The request was not written: its claim had expired.
    Withheld,
}

/// Why a text was not accepted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryReason {
    /// It could not be reached, or answered with a server error.
    Unreachable,
    /// It wants fewer requests.
    Throttled,
    /// The operator's account: wrong credentials, no funds, suspended. The sender cannot fix it.
    Account {
        /// The provider's own code.
        provider_code: Option<ErrorCode>,
    },
}

#[derive(Deserialize)]
struct CreatedMessage {
    sid: Option<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: Option<Value>,
}

impl ErrorBody {
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
pub(super) fn read(status: u16, retry_after: Option<&str>, body: &[u8]) -> TryResult {
    if (200..300).contains(&status) {
        let sid = serde_json::from_slice::<CreatedMessage>(body).ok().and_then(|message| message.sid);
        return match sid.filter(|sid| is_sid(sid)) {
            Some(sid) => TryResult::Accepted { sid },
            None => {
                TryResult::PerhapsSent { why: format!("the provider answered {status} without a message id") }
            }
        };
    }
    let code = serde_json::from_slice::<ErrorBody>(body).ok().and_then(|error| error.code());
    let retry_after = retry_after.and_then(seconds);
    let refused =
        |reason: Code, message: &str| TryResult::Refused(Refusal::new(reason, message).provider_code(code));
    let later = |why| TryResult::Later { status: Some(status), retry_after, why };
    let rejected = || refused(Code::ProviderRejected, "the provider refused the text");
    match (code.and_then(class), status) {
        // With any code: a server may fail after it took the text, a proxy may give up on a request that went through (408),
        // and a redirect leaves the question open.
        (_, 500.. | 300..400 | 408) | (Some(CodeClass::Unsure), _) => perhaps(status, code),
        (Some(CodeClass::Throttled), _) => later(RetryReason::Throttled),
        (Some(CodeClass::DailyLimit), _) => refused(
            Code::ProviderUnavailable,
            "the provider's daily limit is reached; it takes no more texts today",
        ),
        (Some(CodeClass::Number), _) => TryResult::Refused(
            Refusal::new(Code::PhoneInvalid, "the provider reports that the number cannot take a text")
                .provider_code(code)
                .field("smsPhone"),
        ),
        (Some(CodeClass::OptedOut), _) => TryResult::Refused(
            Refusal::new(Code::OptedOut, "the number has opted out of texts")
                .provider_code(code)
                .field("smsPhone"),
        ),
        (Some(CodeClass::NotAllowed), _) => TryResult::Refused(
            Refusal::new(Code::PhoneNotAllowed, "the provider does not text this number")
                .provider_code(code)
                .field("smsPhone"),
        ),
        (Some(CodeClass::Sender), _) => TryResult::Refused(
            Refusal::new(
                Code::ProviderMisconfigured,
                "the provider refuses the group's sender; the operator must fix that",
            )
            .provider_code(code)
            .retry_after(retry_after.unwrap_or_default().max(MISCONFIGURED_RETRY_AFTER)),
        ),
        // Before the status: the text is at fault, even if the provider answers 401 or 403.
        (Some(CodeClass::Text), _) => rejected(),
        (Some(CodeClass::Account), _) | (_, 401 | 403) => later(RetryReason::Account { provider_code: code }),
        (_, 429) => later(RetryReason::Throttled),
        (_, 400..=499) => rejected(),
        _ => perhaps(status, code),
    }
}

/// What a code of the provider is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CodeClass {
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

/// `None` for a code without a class: then the status decides.
fn class(code: ErrorCode) -> Option<CodeClass> {
    Some(match code {
        codes::TO_INVALID
        | codes::TO_NOT_MOBILE
        | codes::NUMBER_INVALID
        | codes::HANDSET_UNKNOWN
        | codes::CARRIER_UNREACHABLE => CodeClass::Number,
        codes::TO_UNSUBSCRIBED => CodeClass::OptedOut,
        codes::REGION_NOT_ENABLED
        | codes::TO_NOT_VERIFIED
        | codes::TO_NOT_REACHABLE_FROM
        | codes::TO_IS_LANDLINE
        | codes::MESSAGE_BLOCKED => CodeClass::NotAllowed,
        codes::BODY_MISSING | codes::TO_MISSING | codes::BODY_TOO_LONG | codes::MESSAGE_FILTERED => {
            CodeClass::Text
        }
        codes::AUTHENTICATION_FAILED
        | codes::FORBIDDEN
        | codes::NOT_FOUND
        | codes::ACCOUNT_NOT_ACTIVE
        | codes::ACCOUNT_SUSPENDED
        | codes::SENDER_NOT_REGISTERED
        | codes::TOLL_FREE_NOT_VERIFIED
        | codes::CAMPAIGN_SUSPENDED
        | codes::NUMBER_NOT_REGISTERED => CodeClass::Account,
        codes::FROM_INVALID
        | codes::FROM_CANNOT_SEND
        | codes::FROM_NOT_OF_ACCOUNT
        | codes::FROM_NOT_SMS_CAPABLE => CodeClass::Sender,
        codes::TOO_MANY_REQUESTS
        | codes::FROM_QUEUE_FULL
        | codes::QUEUE_OVERFLOW
        | codes::CAMPAIGN_RATE_EXCEEDED
        | codes::RATE_EXCEEDED => CodeClass::Throttled,
        codes::DAILY_LIMIT_EXCEEDED => CodeClass::DailyLimit,
        codes::INTERNAL_SERVER_ERROR | codes::SERVICE_UNAVAILABLE => CodeClass::Unsure,
        _ => return None,
    })
}

fn perhaps(status: u16, code: Option<ErrorCode>) -> TryResult {
    let code = code.map(|code| format!(", code {code}")).unwrap_or_default();
    TryResult::PerhapsSent { why: format!("the provider answered {status}{code}") }
}

/// `SM` or `MM` and 32 hex digits at Twilio; other providers differ, so anything short and plain is accepted.
fn is_sid(sid: &str) -> bool {
    (1..=64).contains(&sid.len()) && sid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn seconds(header: &str) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<f64>() {
        return (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(LONGEST_RETRY_AFTER)));
    }
    let at = OffsetDateTime::parse(header, &Rfc2822).ok()?;
    Some((at - OffsetDateTime::now_utc()).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: i64) -> TryResult {
        read(status, None, format!(r#"{{"code":{code},"message":"x","status":{status}}}"#).as_bytes())
    }

    fn refused_as(answer: &TryResult) -> Code {
        let TryResult::Refused(refusal) = answer else { panic!("{answer:?}") };
        refusal.code
    }

    #[test]
    fn a_text_is_accepted_only_with_a_sid() {
        let sid = "SM0123456789abcdef0123456789abcdef";
        let body = format!(r#"{{"sid":"{sid}","new":{{}}}}"#);
        assert_eq!(read(201, None, body.as_bytes()), TryResult::Accepted { sid: sid.into() });
        for body in
            ["", "<html>", "{}", r#"{"sid":null}"#, r#"{"sid":""}"#, r#"{"sid":"a b"}"#, r#"{"sid":1}"#]
        {
            assert!(matches!(read(200, None, body.as_bytes()), TryResult::PerhapsSent { .. }), "{body}");
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
                let answer = error(400, *provider);
                assert_eq!(refused_as(&answer), code, "{provider}");
                let TryResult::Refused(refusal) = answer else { unreachable!() };
                assert_eq!(refusal.provider_code, Some(*provider));
            }
        }
        assert_eq!(refused_as(&error(429, 63_038)), Code::ProviderUnavailable);
        for transient in [20_429, 21_611, 30_001, 30_022, 63_017] {
            assert!(
                matches!(error(400, transient), TryResult::Later { why: RetryReason::Throttled, .. }),
                "{transient}"
            );
        }
        for account in [20_003, 20_403, 20_404, 10_001, 30_002, 30_018, 30_032, 30_033, 30_034] {
            assert!(
                matches!(error(400, account), TryResult::Later { why: RetryReason::Account { .. }, .. }),
                "{account}"
            );
        }
        for unsure in [20_500, 20_503] {
            assert!(matches!(error(400, unsure), TryResult::PerhapsSent { .. }), "{unsure}");
        }
    }

    #[test]
    fn a_code_is_a_number_or_a_string_of_digits() {
        let coded = |code: &str| read(400, None, format!(r#"{{"code":{code},"message":"x"}}"#).as_bytes());
        for code in ["21211", r#""21211""#] {
            assert_eq!(refused_as(&coded(code)), Code::PhoneInvalid, "{code}");
            let TryResult::Refused(refusal) = coded(code) else { unreachable!() };
            assert_eq!(refusal.provider_code, Some(21_211), "{code}");
        }
        assert!(matches!(coded(r#""20429""#), TryResult::Later { why: RetryReason::Throttled, .. }));
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
            let TryResult::Refused(refusal) = coded(code) else { panic!("{code}") };
            assert_eq!((refusal.code, refusal.provider_code), (Code::ProviderRejected, None), "{code}");
        }
    }

    #[test]
    fn a_text_at_fault_is_refused_with_any_4xx_status() {
        for (status, code) in [(401, 21_602), (403, 30_007), (429, 21_617), (404, 21_604)] {
            assert_eq!(refused_as(&error(status, code)), Code::ProviderRejected, "{status} {code}");
        }
    }

    #[test]
    fn a_refusal_that_the_operator_must_fix_allows_a_repeat_after_a_minute_at_the_earliest() {
        let after = |header| match read(400, header, br#"{"code":21606}"#) {
            TryResult::Refused(refusal) => refusal.retry_after_seconds,
            other => panic!("{other:?}"),
        };
        for (header, seconds) in [(None, 60), (Some("5"), 60), (Some("x"), 60), (Some("300"), 300)] {
            assert_eq!(after(header), Some(seconds), "{header:?}");
        }
        // A refused account is tried again after the provider's own Retry-After.
        let account = read(401, Some("7"), b"");
        let expected = Some(Duration::from_secs(7));
        assert!(
            matches!(account, TryResult::Later { retry_after, .. } if retry_after == expected),
            "{account:?}"
        );
    }

    #[test]
    fn without_a_code_the_status_decides() {
        let plain = |status| read(status, None, b"<html>nothing to see</html>");
        assert!(matches!(plain(401), TryResult::Later { why: RetryReason::Account { .. }, .. }));
        assert!(matches!(plain(403), TryResult::Later { why: RetryReason::Account { .. }, .. }));
        assert!(matches!(plain(429), TryResult::Later { why: RetryReason::Throttled, .. }));
        assert_eq!(refused_as(&plain(400)), Code::ProviderRejected);
        assert_eq!(refused_as(&plain(404)), Code::ProviderRejected);
        for unsure in [100, 301, 302, 307, 408, 500, 502, 503, 504, 599] {
            assert!(matches!(plain(unsure), TryResult::PerhapsSent { .. }), "{unsure}");
        }
        for (status, code) in [(500, 21_211), (503, 20_429), (302, 21_211), (502, 63_038), (408, 21_211)] {
            assert!(matches!(error(status, code), TryResult::PerhapsSent { .. }), "{status} {code}");
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_or_as_a_date() {
        let after = |header| match read(429, Some(header), b"") {
            TryResult::Later { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after(" 0.5 "), Some(Duration::from_millis(500)));
        assert_eq!(after("100000"), Some(Duration::from_secs(100_000)));
        assert_eq!(after("1e99"), Some(Duration::from_secs(1_000_000_000)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = OffsetDateTime::now_utc() + Duration::from_mins(1);
        let soon = soon.format(&Rfc2822).unwrap().replace("+0000", "GMT");
        assert!(after(&soon).is_some_and(|after| (50..=60).contains(&after.as_secs())), "{soon}");
        for none in ["-1", "soon", "NaN", ""] {
            assert_eq!(after(none), None, "{none}");
        }
    }
}
