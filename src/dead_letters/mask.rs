//! Masks what of a dead letter must not be shown. A dead letter is kept whole: it may hold credentials, phone numbers,
//! session keys and texts, wherever its sender put them. So a value of a body is shown only if its field and form are known
//! to be harmless, and a header that the worker did not add only if it is a few short words.

use crate::{output::plain, queue::dead::is_added, traceparent::TraceParent};
use lapin::types::AMQPValue;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

pub(super) const MASKED: &str = "[masked]";

/// So many digits in a row may be a phone number, or a time in a credential.
const DIGITS: usize = 7;
/// Characters of a word that cannot be a credential: the shortest credential, a website session's id, has 20.
const WORD: usize = 19;
/// Bytes of a text that may be shown.
const TEXT: usize = 400;

/// Parts of the names of headers that may hold a secret.
const SECRET: [&str; 9] =
    ["authorization", "gssnid", "ticket", "token", "secret", "password", "cookie", "phone", "apikey"];

/// Parts of the names of fields whose values are credentials.
const CREDENTIALS: [&str; 5] = ["authorization", "gssnid", "secret", "password", "apikey"];

/// A text that the worker wrote, stores or logs: a reason, an id, a queue's name. Safe for a terminal.
pub(crate) fn known(text: &str) -> String {
    if looks_like_a_credential(text) { MASKED.to_owned() } else { plain(&without_e164(text)) }
}

/// A time, to the second.
pub(crate) fn time(text: &str) -> String {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).map(crate::invite::reply::to_the_second);
    parsed.ok().filter(|at| !at.is_empty()).unwrap_or_else(|| known(text))
}

/// A header as JSON, with its name.
pub(crate) fn header(name: &str, value: &AMQPValue) -> (String, Value) {
    let plain_name: String = name.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let shown = match plain_name.as_str() {
        secret if SECRET.iter().any(|part| secret.contains(part)) => Value::from(MASKED),
        "groupid" => json(value, &|text| if is_group(text) { text.to_owned() } else { MASKED.to_owned() }),
        "traceparent" => json(value, &|text| {
            TraceParent::parse(text).map_or_else(|| MASKED.to_owned(), |trace| trace.to_string())
        }),
        "xsessionid" => json(value, &|text| match Uuid::parse_str(text) {
            Ok(id) => id.to_string(),
            Err(_) => MASKED.to_owned(),
        }),
        _ if is_added(name) => json(value, &known),
        _ => json(value, &harmless),
    };
    (if is_added(name) { plain(name) } else { harmless_name(name) }, shown)
}

fn json(value: &AMQPValue, text: &dyn Fn(&str) -> String) -> Value {
    let number = |number: i64| {
        let written = number.to_string();
        // A number may be a phone number: it is judged as the text that it would be.
        if text(&written) == written { Value::from(number) } else { Value::from(MASKED) }
    };
    match value {
        AMQPValue::Void => Value::Null,
        AMQPValue::Boolean(is) => Value::from(*is),
        AMQPValue::LongString(bytes) => text(&String::from_utf8_lossy(bytes.as_bytes())).into(),
        AMQPValue::ShortString(short) => text(short.as_str()).into(),
        AMQPValue::ShortShortInt(n) => number((*n).into()),
        AMQPValue::ShortShortUInt(n) => number((*n).into()),
        AMQPValue::ShortInt(n) => number((*n).into()),
        AMQPValue::ShortUInt(n) => number((*n).into()),
        AMQPValue::LongInt(n) => number((*n).into()),
        AMQPValue::LongUInt(n) => number((*n).into()),
        AMQPValue::LongLongInt(n) => number(*n),
        AMQPValue::Timestamp(at) => Value::from(*at),
        AMQPValue::FieldArray(array) => array.as_slice().iter().map(|value| json(value, text)).collect(),
        AMQPValue::FieldTable(table) => {
            let fields = table.inner().iter().map(|(name, value)| {
                let secret = SECRET.iter().any(|part| name.as_str().to_ascii_lowercase().contains(part));
                let value = if secret { Value::from(MASKED) } else { json(value, text) };
                (harmless_name(name.as_str()), value)
            });
            Value::Object(fields.collect())
        }
        AMQPValue::Float(_) | AMQPValue::Double(_) | AMQPValue::DecimalValue(_) | AMQPValue::ByteArray(_) => {
            MASKED.into()
        }
    }
}

/// A JSON body, with all values masked that are not known to be harmless. `None` for any other body.
pub(super) fn body(bytes: &[u8]) -> Option<Value> {
    // A byte order mark is no part of it (contract, section 2).
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    serde_json::from_slice(bytes).ok().map(|value| field("", value))
}

/// A body as its person may read it: with all but credentials.
pub(crate) fn without_credentials(bytes: &[u8]) -> Value {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = || Value::from(String::from_utf8_lossy(bytes).into_owned());
    uncredentialed("", serde_json::from_slice(bytes).unwrap_or_else(|_| text()))
}

/// The same of a value.
pub(crate) fn value_without_credentials(value: Value) -> Value {
    uncredentialed("", value)
}

fn uncredentialed(name: &str, value: Value) -> Value {
    let name = name.to_ascii_lowercase();
    match value {
        Value::Null => value,
        _ if CREDENTIALS.iter().any(|part| name.contains(part)) => MASKED.into(),
        Value::String(text) if looks_like_a_credential(&text) => MASKED.into(),
        Value::Array(items) => items.into_iter().map(|item| uncredentialed("", item)).collect(),
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| {
                    let shown = uncredentialed(&name, value);
                    (if looks_like_a_credential(&name) { MASKED.to_owned() } else { name }, shown)
                })
                .collect(),
        ),
        other => other,
    }
}

fn field(name: &str, value: Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value,
        // No known field is an array.
        Value::Array(items) => items.into_iter().map(|item| field("", item)).collect(),
        Value::Object(fields) => {
            let mut shown = Map::new();
            for (name, value) in fields {
                let value = field(&name, value);
                let mut name = harmless_name(&name);
                while shown.contains_key(&name) {
                    name.push('\'');
                }
                shown.insert(name, value);
            }
            Value::Object(shown)
        }
        Value::Number(number) => leaf(name, &number.to_string(), Value::Number(number)),
        Value::String(text) => leaf(name, &text, Value::from(plain(&text))),
    }
}

fn leaf(name: &str, text: &str, value: Value) -> Value {
    if is_harmless(name, text) { value } else { MASKED.into() }
}

/// Whether this value of a field of a request or a reply fits the field so well that it cannot be a secret.
fn is_harmless(name: &str, text: &str) -> bool {
    let lowercase =
        |most: usize| text.len() <= most && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let number = |most: usize| text.len() <= most && text.bytes().all(|b| b.is_ascii_digit());
    match name {
        "groupid" => is_group(text),
        "sessiontype" | "providerCode" | "retryAfterSeconds" => number(6),
        "status" => lowercase(WORD) || number(3),
        "camera" => lowercase(WORD),
        "code" => lowercase(40),
        "field" => {
            let name = |part: &str| {
                part.len() <= WORD && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            };
            text.split('.').count() <= 2 && text.split('.').all(name) && !has_digits(text)
        }
        "resolution" => text.split_once('x').is_some_and(|(width, height)| {
            [width, height].iter().all(|side| side.len() <= 5 && side.bytes().all(|b| b.is_ascii_digit()))
        }),
        "sessionId" => Uuid::parse_str(text).is_ok(),
        "expiresAt" => OffsetDateTime::parse(text, &Rfc3339).is_ok(),
        "providerMessageId" => {
            text.len() == 34 && text.is_ascii() && text[2..].bytes().all(|b| b.is_ascii_hexdigit())
        }
        "message" => harmless(text) == text,
        _ => false,
    }
}

fn is_group(text: &str) -> bool {
    // 2^53-1 has 16.
    (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

/// The text, if it is short words with few digits, and safe for a terminal.
fn harmless(text: &str) -> String {
    let word = |word: &str| word.chars().count() <= WORD;
    let short = text.len() <= TEXT && text.split([' ', ',', ':', ';', '"', '\'', '(', ')']).all(word);
    if short && !has_digits(text) && !looks_like_a_credential(text) { plain(text) } else { MASKED.to_owned() }
}

/// The name, if its parts are harmless words.
fn harmless_name(name: &str) -> String {
    if harmless(&name.replace(['-', '_'], " ")) == MASKED { MASKED.to_owned() } else { plain(name) }
}

/// Whether so many digits follow each other as in a phone number, with or without separators.
fn has_digits(text: &str) -> bool {
    let mut run = 0;
    for c in text.chars() {
        match c {
            _ if c.is_numeric() => run += 1,
            '-' | '.' | ' ' | '(' | ')' | '/' | '+' => {}
            _ => run = 0,
        }
        if run >= DIGITS {
            return true;
        }
    }
    false
}

fn looks_like_a_credential(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let written = ["bearer ", "gkey ", "gjwt ", "gssnid ", "$1$", "%241%24"];
    // The worker's own messages name the types too, but only words follow them there.
    let named = written.iter().any(|part| {
        lower
            .split(part)
            .skip(1)
            .any(|after| after.split_whitespace().next().is_some_and(|word| word.len() > WORD))
    });
    named || text.split(|c: char| !(c.is_ascii_alphanumeric() || "._-~".contains(c))).any(is_token)
}

/// Whether the word is a web token (three parts of base64url) or a website session's id (person, time, random).
fn is_token(word: &str) -> bool {
    let parts: Vec<_> = word.split('.').collect();
    let web = parts.len() >= 3 && word.starts_with("eyJ");
    let website = parts.len() >= 3
        && parts.windows(2).any(|pair| {
            pair[0].len() >= 9 && pair[0].bytes().all(|b| b.is_ascii_digit()) && pair[1].len() >= 16
        });
    web || website
}

/// The text with each number in E.164 masked.
fn without_e164(text: &str) -> String {
    let mut parts = text.split('+');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        if digits >= DIGITS {
            let _ = write!(shown, "{MASKED}{}", &part[digits..]);
        } else {
            let _ = write!(shown, "+{part}");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const GKEY: &str = "Bearer GKEY 72&12345&$1$1589912963$z5H7IXHSBEkxbAnDO5wlkuNno4ZgkFcqhAyJnJ577iU";
    const GJWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2lnbmF0dXJl";
    const GSSNID: &str = "joe.1589912963.AAAAAAAAAAAAAAAA";

    #[test]
    fn a_time_that_has_no_utc_is_shown_as_it_is() {
        assert_eq!(time("2026-11-30T01:00:00+01:00"), "2026-11-30T00:00:00Z");
        assert_eq!(time("9999-12-31T23:59:59-23:59"), "9999-12-31T23:59:59-23:59");
    }

    #[test]
    fn harmless_values_of_a_request_and_a_reply_are_shown() {
        let request = json!({"groupid": "72", "sessiontype": 1, "smsPhone": "111-000-0000", "authorization": GKEY,
                             "sessionParams": {"camera": "back", "resolution": "352x288", "agent": "Joe"}});
        assert_eq!(
            body(request.to_string().as_bytes()).unwrap(),
            json!({"groupid": "72", "sessiontype": 1, "smsPhone": MASKED, "authorization": MASKED,
                   "sessionParams": {"camera": "back", "resolution": "352x288", "agent": MASKED}})
        );
        let reply = json!({"status": "sent", "sessionKey": "123456", "invitationText": "Join: https://x",
                           "sessionId": "01a20b80-29bb-75db-be48-b9bc3223500c", "groupid": 72, "smsPhone": "+11110000000",
                           "expiresAt": "2026-11-23T20:00:00Z", "providerMessageId": "SM8778fb1ebca9c66acd0f545a0ca60464"});
        let mut expected = reply.clone();
        for name in ["sessionKey", "invitationText", "smsPhone"] {
            expected[name] = MASKED.into();
        }
        assert_eq!(body(reply.to_string().as_bytes()).unwrap(), expected);
        assert_eq!(body(format!("\u{feff}{reply}").as_bytes()).unwrap(), expected);
        let message = "the credential must read 'Bearer TYPE value', where TYPE is GKEY, GJWT or GSSNID";
        let refused = json!({"status": "rejected", "error": {"code": "credential_malformed", "message": message,
                             "field": "sessionParams.camera", "status": 401, "retryable": false}});
        assert_eq!(body(refused.to_string().as_bytes()).unwrap(), refused);
    }

    #[test]
    fn no_credential_is_shown_wherever_its_sender_put_it() {
        for secret in [GKEY, GJWT, GSSNID, &format!("Bearer GJWT {GJWT}"), &GKEY[12..], "+12015550100"] {
            for shape in [
                json!(secret),
                json!([secret]),
                json!({"authorization": [secret]}),
                json!({"Authorization": {"value": secret}}),
                json!({"GSSNID": secret}),
                json!({"auth": secret}),
                json!({"sessionParams": {"camera": secret, "x": [{"status": secret}]}}),
                json!({"message": secret, "field": secret, "code": secret, "groupid": secret, "expiresAt": secret}),
                json!({secret: 1}),
                json!([{"error": {"message": format!("not {secret}")}}]),
            ] {
                let shown = body(shape.to_string().as_bytes()).unwrap().to_string();
                assert!(!shown.contains(&secret[secret.len() - 8..]), "{shown}");
            }
            for name in
                ["Authorization", "AUTHORIZATION", "X-GSSNID", "x-gssnid", "x-ticket", "other", "groupid"]
            {
                let (_, shown) = header(name, &AMQPValue::LongString(secret.into()));
                assert_eq!(shown, MASKED, "{name}");
            }
            assert!(!known(&format!("a reason with {secret}")).contains(&secret[secret.len() - 8..]));
        }
        assert_eq!(body(b"{\"authorization\": \"Bearer"), None);
        assert_eq!(body(b"\xff"), None);
    }

    /// JSON of any shape, with secrets anywhere in it.
    fn hostile() -> impl Strategy<Value = Value> {
        let secret =
            prop::sample::select(vec![GKEY, &GKEY[12..], GJWT, GSSNID, "+12015550100", "(201) 555-0100"]);
        let text =
            ("[ -~]{0,12}", secret, "[ -~]{0,12}").prop_map(|(a, secret, b)| format!("{a}{secret}{b}"));
        let known = [
            "authorization",
            "smsPhone",
            "groupid",
            "status",
            "code",
            "message",
            "field",
            "camera",
            "resolution",
            "sessionId",
            "expiresAt",
            "providerMessageId",
            "sessionParams",
            "other",
        ];
        let name =
            prop_oneof![4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => text.clone()];
        let leaf = prop_oneof![
            text.prop_map(Value::from),
            Just(json!(12_015_550_100_u64)),
            Just(json!(2.015_550_1e9))
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name.clone(), inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_shape_of_a_body_shows_a_secret(shape in hostile()) {
            let shown = body(shape.to_string().as_bytes()).unwrap().to_string();
            for part in ["JnJ577iU", "c2lnbmF0", "AAAAAAAA", "5550100", "555-0100", "20155501"] {
                // A group's id is digits, and shown.
                let shown = shown.replace("\"groupid\":12015550100", "");
                prop_assert!(!shown.contains(part), "{shown}");
            }
        }
    }

    #[test]
    fn headers_that_explain_a_dead_letter_are_shown() {
        let shown = |name: &str, text: &str| header(name, &AMQPValue::LongString(text.into())).1;
        for (name, text) in [
            ("x-queue", "session_invite_test_8f4ac2bd1e0748b8a4b8b7a3f9c90b6d.requests"),
            ("x-reason", "the statement \"open\" failed: new row violates never_this_one (23514)"),
            ("x-publish-id", "01a20b80-29bb-75db-be48-b9bc3223500c"),
            ("x-session-id", "01a20b80-29bb-75db-be48-b9bc3223500c"),
            ("groupid", "9007199254740991"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("app", "crm 1.2"),
            ("x-first-death-exchange", ""),
            ("X-Request-Correlation-Id", "a"),
        ] {
            assert_eq!(shown(name, text), text, "{name}");
            assert_eq!(header(name, &AMQPValue::Void).0, name);
        }
        assert_eq!(header("tries", &AMQPValue::LongInt(3)).1, json!(3));
        assert_eq!(header("number", &AMQPValue::LongLongInt(12_015_550_100)).1, MASKED);
        assert_eq!(known("to +12015550100, twice"), "to [masked], twice");
        assert_eq!(known("a\u{1b}[2Jb\u{9b}"), "a\\u{1b}[2Jb\\u{9b}");
        assert_eq!(shown("app", "\u{1b}[2J"), "\\u{1b}[2J");
        assert_eq!(time("2026-11-23T20:00:00.123456Z"), "2026-11-23T20:00:00Z");
    }
}
