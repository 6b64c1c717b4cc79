//! `POST …/smsInvite/`: the documented request, by way of the queue.

use super::{
    Gateway,
    body::Content,
    caller,
    front::{self, RequestId},
    openapi::responses::OfInvites,
    problem::{Own, Problem, Replied},
    query, routes,
};
use crate::{
    failpoint,
    invite::{Envelope, Request, envelope::has_control, reply::SentBody},
    queue::{AskError, Outgoing},
    refusal::{Code, Refusal},
};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::{borrow::Cow, sync::Arc};
use uuid::Uuid;

pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// In a refusal.
const IDEMPOTENCY_KEY_SHOWN: &str = "Idempotency-Key";
/// A short string of AMQP's holds no more.
const LONGEST_KEY: usize = 255;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Invite a visitor
///
/// The invite goes to a worker by way of the queue, and the answer is the worker's reply. When the connection is lost or no reply comes in time, the invite goes on; the same
/// request with the same Idempotency-Key gets its answer.
#[utoipa::path(post, path = routes::SMS_INVITE.shown, tag = "Invites",
    params(
        ("groupid" = i64, Query, description = "The group that asks; the credential has to be its.", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 72),
        ("Idempotency-Key" = Option<String>, Header, description = "The invite's, the same for each repeat: at most 255 bytes of UTF-8 without control characters. One in double quotes, as a structured field has it (RFC 9651), counts without its quotes. An empty one counts as none.", pattern = r#"^([^\u0000-\u001f\u007f-\u009f]{0,255}|"([^"\\\u0000-\u001f\u007f-\u009f]|\\["\\]){0,255}")$"#, nullable = false, example = "order-17"),
    ),
    request_body(content = ref("#/components/schemas/Invite"), content_type = "application/json"),
    responses(
        (status = 200, description = "The text was handed over to the provider.", body = SentBody, content_type = "application/json",
         headers(("Idempotency-Key" = String, description = "The invite's, given or made."))),
        OfInvites,
    ),
    security(("authorization" = []), ("gssnid" = [])))]
pub async fn sms_invite(
    State(gateway): State<Arc<Gateway>>,
    Extension(RequestId(id)): Extension<RequestId>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Content, Problem>,
) -> Response {
    let key = match idempotency_key(&headers) {
        Ok(Some(key)) => key,
        Ok(None) => front::new_id().to_string(),
        // Told to whoever proves to be a sender.
        Err(refusal) => {
            let admitted = admit(&gateway, &uri, &headers, body).await;
            return admitted.err().unwrap_or_else(|| refusal.into()).into_response();
        }
    };
    let answered = async {
        let mut envelope = admit(&gateway, &uri, &headers, body).await?;
        envelope.message_id = Some(key.clone());
        ask(&gateway, id, envelope).await
    };
    let mut response = answered.await.into_response();
    if let Ok(key) = HeaderValue::from_bytes(key.as_bytes()) {
        response.headers_mut().insert(IDEMPOTENCY_KEY, key);
    }
    response
}

/// The request as the worker will see it, its shape, credential and group checked: what fails there leaves no row, and
/// need not trouble the broker. The rest is the worker's to check.
async fn admit(
    gateway: &Gateway,
    uri: &Uri,
    headers: &HeaderMap,
    body: Result<Content, Problem>,
) -> Result<Envelope, Problem> {
    let groupid = query::value(uri.query(), "groupid");
    let mut envelope = caller::envelope(headers, groupid.clone().ok().flatten());
    envelope.content_type = content_type(headers)?;
    envelope.body = body?.0;
    let request = Request::parse(&envelope)?;
    caller::admit(gateway, &request, &envelope).await?;
    groupid?;
    Ok(envelope)
}

/// Publishes, and waits for the worker's word.
async fn ask(gateway: &Gateway, id: Uuid, envelope: Envelope) -> Result<Response, Problem> {
    let asking = gateway.asking()?;
    failpoint::hit_by("asked", envelope.message_id.as_deref());
    let message = Outgoing::request(&gateway.names, envelope);
    let replied = tokio::select! {
        biased;
        replied = asking.ask(id, message, gateway.config.http.timeout) => replied,
        () = gateway.last_call.cancelled() => Err(AskError::NoReply),
    };
    match replied {
        Ok(reply) => answer(reply),
        Err(AskError::NotPublished(why)) => {
            Err(Problem::unavailable(format!("the invite was not taken: {why}")))
        }
        Err(AskError::NoReply) => Err(Problem::new(
            Own::ReplyTimeout,
            "no reply came in time; the invite goes on, and the same request with this Idempotency-Key asks for its reply",
        )),
    }
}

/// A sent invite's reply goes on as it is.
fn answer(reply: Vec<u8>) -> Result<Response, Problem> {
    #[derive(Deserialize)]
    struct Status {
        error: Option<Replied>,
    }
    match serde_json::from_slice(&reply) {
        Ok(Status { error: None }) => Ok((StatusCode::OK, [(CONTENT_TYPE, JSON)], reply).into_response()),
        Ok(Status { error: Some(error) }) => Err(Problem::replied(error)),
        Err(error) => {
            tracing::error!(%error, "a worker's reply cannot be read");
            Err(Problem::internal())
        }
    }
}

/// Nothing where nothing was said. What is no text is none that says JSON.
fn content_type(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut given = headers.get_all(CONTENT_TYPE).iter();
    let first = given.next().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if given.next().is_some() {
        return Err(Refusal::new(Code::RequestMalformed, "Content-Type is repeated"));
    }
    Ok(first)
}

/// The sender's key; an empty one is none. One in double quotes, as a structured field has it, stands without them.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let invalid = |rule: &str| {
        let message = format!("{IDEMPOTENCY_KEY_SHOWN} {rule}");
        Err(Refusal::new(Code::FieldInvalid, message).field(IDEMPOTENCY_KEY_SHOWN))
    };
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(first) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return invalid("is repeated");
    }
    let key = std::str::from_utf8(first.as_bytes()).map(|text| unquoted(text).unwrap_or(Cow::Borrowed(text)));
    match key {
        Ok(key) if key.is_empty() => Ok(None),
        Ok(key) if key.len() <= LONGEST_KEY && !has_control(&key) => Ok(Some(key.into_owned())),
        _ => invalid("must have at most 255 bytes of UTF-8 and no control characters"),
    }
}

/// What a structured field's string stands for (RFC 9651, section 4.2.5), where the text is one: in double quotes, in which
/// a backslash stands before a quote or a backslash and nothing else. Other text is a key as it is.
fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains(['"', '\\']) {
        return Some(Cow::Borrowed(inner));
    }
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => chars.next().filter(|escaped| matches!(escaped, '"' | '\\'))?,
            '"' => return None,
            other => other,
        });
    }
    Some(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::document;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn a_key_in_quotes_stands_without_them() {
        for (value, key) in [
            ("abc", Some("abc")),
            ("\"abc\"", Some("abc")),
            ("\"a b\"", Some("a b")),
            ("\"é\"", Some("é")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            ("\"\"", None),
            ("", None),
            // No structured field's string: as it is.
            ("\"", Some("\"")),
            ("\"abc", Some("\"abc")),
            ("abc\"", Some("abc\"")),
            (r#""a"b""#, Some(r#""a"b""#)),
            (r#""a\b""#, Some(r#""a\b""#)),
            (r#""abc\""#, Some(r#""abc\""#)),
            ("'abc'", Some("'abc'")),
        ] {
            assert_eq!(read(value), Ok(key.map(str::to_owned)), "{value}");
        }
        let longest = "i".repeat(LONGEST_KEY);
        assert_eq!(read(&format!("\"{longest}\"")), Ok(Some(longest.clone())));
        for bad in [format!("{longest}i"), "a\tb".to_owned(), "\"a\tb\"".to_owned(), "\"\u{85}\"".to_owned()]
        {
            assert_eq!(read(&bad), Err(Code::FieldInvalid), "{bad:?}");
        }
    }

    fn read(value: &str) -> Result<Option<String>, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        idempotency_key(&headers).map_err(|refusal| refusal.code)
    }

    fn published_rule() -> Value {
        let parameters = &document()["paths"][routes::SMS_INVITE.published()]["post"]["parameters"];
        let mut named =
            parameters.as_array().unwrap().iter().filter(|named| named["name"] == IDEMPOTENCY_KEY_SHOWN);
        named.next().unwrap()["schema"].clone()
    }

    /// A header's value: it may hold a tab, and no other control character of ASCII.
    fn value() -> impl Strategy<Value = String> {
        let c = prop_oneof!["[ -~]", r#"["\\]"#, Just("\t".to_owned()), "[\u{80}-\u{a0}é😀]"];
        let inner = proptest::collection::vec(c, 0..300).prop_map(|parts| parts.concat());
        (any::<bool>(), inner).prop_map(|(quoted, inner)| if quoted { format!("\"{inner}\"") } else { inner })
    }

    proptest! {
        #[test]
        fn the_document_takes_each_key_that_is_taken_and_of_ascii_no_other(value in value()) {
            let is_valid = jsonschema::is_valid(&published_rule(), &json!(value));
            let is_taken = read(&value).is_ok();
            prop_assert!(is_valid || !is_taken);
            prop_assert!(is_taken || !is_valid || !value.is_ascii());
        }

        /// `./dev api` has schemathesis draw its keys by this rule, and no others for good ones.
        #[test]
        fn each_key_that_schemathesis_draws_is_taken(value in value()) {
            let narrowed: Value =
                serde_json::from_str(include_str!("../../tests/api/narrowed.json")).unwrap();
            let is_drawn = jsonschema::is_valid(&narrowed[IDEMPOTENCY_KEY_SHOWN], &json!(value));
            let is_visible = value.bytes().all(|b| matches!(b, b' '..=b'~')) && value.trim() == value;
            prop_assert_eq!(is_drawn, is_visible && read(&value).is_ok());
        }
    }
}
