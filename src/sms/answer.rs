//! What the provider's answer to a create means (contract, section 6; codes from the provider's documentation,
//! <https://www.twilio.com/docs/api/errors>). Decided by code before status; pure, and tested as a table.

use crate::refusal::{Code, Refusal};
use serde::Deserialize;
use std::time::Duration;

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
        provider_code: Option<i64>,
    },
}

#[derive(Deserialize)]
struct Created {
    sid: Option<String>,
}

#[derive(Deserialize)]
struct Fault {
    code: Option<i64>,
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
    let code = serde_json::from_slice::<Fault>(body).ok().and_then(|fault| fault.code);
    let refused = |by: Code, message: &str| Answer::Refused(Refusal::new(by, message).provider_code(code));
    match (code, status) {
        (Some(20_429 | 21_611 | 30_001 | 30_022 | 63_017), _) => {
            Answer::Later { retry_after: retry_after.and_then(seconds), why: Later::Throttled }
        }
        (Some(63_038), _) => refused(
            Code::ProviderUnavailable,
            "the provider's daily limit is reached; it takes no more texts today",
        ),
        // Whatever else it says, a server's own error may have come after it took the text.
        (Some(20_500 | 20_503), _) | (_, 500..) => perhaps(status, code),
        (Some(21_211 | 21_614 | 21_217 | 30_005 | 30_006), _) => {
            number("is not one that can take a text", code)
        }
        (Some(21_610), _) => Answer::Refused(
            Refusal::new(Code::OptedOut, "the number has opted out of texts")
                .provider_code(code)
                .field("smsPhone"),
        ),
        (Some(21_408 | 21_608 | 21_612 | 21_635 | 30_004), _) => Answer::Refused(
            Refusal::new(Code::PhoneNotAllowed, "the provider does not text this number")
                .provider_code(code)
                .field("smsPhone"),
        ),
        (Some(21_212 | 21_606 | 21_659 | 21_661), _) => refused(
            Code::ProviderMisconfigured,
            "the provider refuses the group's sender; the operator must mend it",
        ),
        (Some(20_003 | 20_403 | 20_404 | 10_001 | 30_002 | 30_018 | 30_032 | 30_033 | 30_034), _)
        | (_, 401 | 403) => Answer::Later { retry_after: None, why: Later::Account { provider_code: code } },
        (_, 429) => Answer::Later { retry_after: retry_after.and_then(seconds), why: Later::Throttled },
        (_, 400..=499) => refused(Code::ProviderRejected, "the provider refused the text"),
        _ => perhaps(status, code),
    }
}

fn perhaps(status: u16, code: Option<i64>) -> Answer {
    let code = code.map(|code| format!(", code {code}")).unwrap_or_default();
    Answer::PerhapsSent { why: format!("the provider answered {status}{code}") }
}

fn number(what: &str, code: Option<i64>) -> Answer {
    let message = format!("the provider says that the number {what}");
    Answer::Refused(Refusal::new(Code::PhoneInvalid, message).provider_code(code).field("smsPhone"))
}

/// `SM` or `MM` and 32 hex digits at Twilio; others differ, so anything short and plain will do.
fn is_sid(sid: &str) -> bool {
    (1..=64).contains(&sid.len()) && sid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// `Retry-After` in seconds; its date form is not used by this provider.
fn seconds(header: &str) -> Option<Duration> {
    header.trim().parse::<f64>().ok().filter(|s| (0.0..=86_400.0).contains(s)).map(Duration::from_secs_f64)
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
    fn without_a_code_the_status_decides() {
        let plain = |status| read(status, None, b"<html>nothing to see</html>");
        assert!(matches!(plain(401), Answer::Later { why: Later::Account { .. }, .. }));
        assert!(matches!(plain(403), Answer::Later { why: Later::Account { .. }, .. }));
        assert!(matches!(plain(429), Answer::Later { why: Later::Throttled, .. }));
        assert_eq!(refused_as(&plain(400)), Code::ProviderRejected);
        assert_eq!(refused_as(&plain(404)), Code::ProviderRejected);
        for unsure in [100, 301, 302, 307, 500, 502, 503, 504, 599] {
            assert!(matches!(plain(unsure), Answer::PerhapsSent { .. }), "{unsure}");
        }
        assert!(matches!(fault(500, 21_211), Answer::PerhapsSent { .. }));
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let after = |header| match read(429, Some(header), b"") {
            Answer::Later { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after(" 0.5 "), Some(Duration::from_millis(500)));
        for none in ["-1", "soon", "NaN", "1e99", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(after(none), None, "{none}");
        }
    }
}
