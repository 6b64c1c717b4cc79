//! What of a dead letter may be seen. Credentials, phone numbers, session keys and texts are in it, as it is kept whole;
//! none of them is shown, wherever its sender put it. So of a body only those values are shown whose field and form are
//! known to be harmless, and of other people's headers only short words.

use crate::{output::plain, queue::dead::is_added, traceparent::TraceParent};
use lapin::types::AMQPValue;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

pub const MASKED: &str = "[masked]";

/// As many digits in a row may be a phone number, or a time in a credential.
const DIGITS: usize = 7;
/// Characters of a word that is no credential: the shortest that is one, a website session's id, has 20.
const WORD: usize = 19;
/// Characters of a text that is shown whole.
const TEXT: usize = 400;

/// Names of headers that hold, or may hold, what nobody is to see.
const SECRET: [&str; 9] =
    ["authorization", "gssnid", "ticket", "token", "secret", "password", "cookie", "phone", "apikey"];

/// A text that the worker wrote, or that it stores and logs: a reason, an id, a queue's name. For a terminal.
pub fn known(text: &str) -> String {
    if looks_like_a_credential(text) { MASKED.to_owned() } else { plain(&without_e164(text)) }
}

/// A time to the second, as it is written.
pub fn time(text: &str) -> String {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).map(crate::invite::reply::to_the_second);
    parsed.unwrap_or_else(|_| known(text))
}

/// A header as JSON, with its name.
pub fn header(name: &str, value: &AMQPValue) -> (String, Value) {
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
        // As what it would be if it were written: a number may be a phone's.
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

/// A body that is JSON, with all masked but what is known to be harmless. `None` for any other.
pub fn body(bytes: &[u8]) -> Option<Value> {
    // A byte order mark is no part of it (contract, section 2).
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    serde_json::from_slice(bytes).ok().map(|value| field("", value))
}

fn field(name: &str, value: Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value,
        // No field that is known is an array.
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

/// Whether this value of a field of a request or a reply can be nothing but what the field is for.
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

/// The text, if it is short words with few digits; for a terminal.
fn harmless(text: &str) -> String {
    let word = |word: &str| word.chars().count() <= WORD;
    let short = text.len() <= TEXT && text.split([' ', ',', ':', ';', '"', '\'', '(', ')']).all(word);
    if short && !has_digits(text) && !looks_like_a_credential(text) { plain(text) } else { MASKED.to_owned() }
}

/// Names are of several words.
fn harmless_name(name: &str) -> String {
    if harmless(&name.replace(['-', '_'], " ")) == MASKED { MASKED.to_owned() } else { plain(name) }
}

/// Whether digits follow each other as in a phone number, however it is written.
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
    // Our own words name the types as well, and nothing follows them there but words.
    let named = written.iter().any(|part| {
        lower
            .split(part)
            .skip(1)
            .any(|after| after.split_whitespace().next().is_some_and(|word| word.len() > WORD))
    });
    named || text.split(|c: char| !(c.is_ascii_alphanumeric() || "._-~".contains(c))).any(is_token)
}

/// Three parts of base64url, as a web token has; or a website session's person, time and random.
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
    fn of_a_request_and_a_reply_the_harmless_is_shown() {
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
    fn what_helps_is_shown() {
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
        assert_eq!(known("a\u{1b}[2Jb\u{9b}"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(shown("app", "\u{1b}[2J"), "\u{fffd}[2J");
        assert_eq!(time("2026-11-23T20:00:00.123456Z"), "2026-11-23T20:00:00Z");
    }
}
