//! `POST …/smsInvite/`: the documented request, by way of the queue.

use super::{
    Gateway,
    body::RequestBody,
    caller,
    front::{self, RequestId},
    openapi::responses::InviteProblems,
    problem::{GatewayCode, Problem, ReplyError},
    query, routes,
};
use crate::{
    failpoint,
    invite::{Caller, Envelope, Request, envelope::has_control, reply::SentBody},
    queue::{Outgoing, RpcError},
    refusal::{Code, Refusal},
};
use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::{borrow::Cow, sync::Arc, time::Duration};
use uuid::Uuid;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header's name as a refusal shows it.
const IDEMPOTENCY_KEY_SHOWN: &str = "Idempotency-Key";
/// How long a request of a paused group waits where many others of such groups wait: its invite has a refusal by then, or
/// waits too.
const PAUSED_WAITS_FOR: Duration = Duration::from_secs(1);
const NO_REPLY: &str = "no reply came in time; the invite continues, and the same request with this Idempotency-Key gets its reply";
const GROUP_PAUSED: &str = "the group is paused, and the invite waits for the end of that; the same request with this \
                            Idempotency-Key gets its reply";
/// Bytes of a key at most: it becomes the `message_id`, and AMQP's short strings hold no more.
const LONGEST_KEY: usize = 255;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Invite a visitor
///
/// The invite goes to a worker by way of the queue, and the answer is the worker's reply. When the connection is lost or no reply comes in time, the invite continues. Send the same
/// request with the same Idempotency-Key to get its answer.
#[utoipa::path(post, path = routes::SMS_INVITE.shown, tag = "Invites",
    params(
        ("groupid" = i64, Query, description = "The caller's group. The credential must belong to it.", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 72),
        ("Idempotency-Key" = Option<String>, Header, description = "The key of the invite, the same in each repeat: at most 255 bytes of UTF-8 without control characters. One in double quotes, as a structured field has it (RFC 9651), is taken without its quotes. An empty one counts as none.", pattern = r#"^([^\u0000-\u001f\u007f-\u009f]{0,255}|"([^"\\\u0000-\u001f\u007f-\u009f]|\\["\\]){0,255}")$"#, nullable = false, example = "order-17"),
    ),
    request_body(content = ref("#/components/schemas/Invite"), content_type = "application/json"),
    responses(
        (status = 200, description = "The text was handed over to the provider.", body = SentBody, content_type = "application/json",
         headers(("Idempotency-Key" = String, description = "The key of the invite, given by the client or made by the gateway."))),
        InviteProblems,
    ),
    security(("authorization" = []), ("gssnid" = [])))]
pub(super) async fn sms_invite(
    State(gateway): State<Arc<Gateway>>,
    Extension(RequestId(id)): Extension<RequestId>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<RequestBody, Problem>,
) -> Response {
    let key = match idempotency_key(&headers) {
        Ok(Some(key)) => key,
        Ok(None) => front::new_id().to_string(),
        // Only an authenticated sender gets this refusal.
        Err(refusal) => {
            let admitted = admit(&gateway, &uri, &headers, body).await;
            return admitted.err().unwrap_or_else(|| refusal.into()).into_response();
        }
    };
    let answered = async {
        let (mut envelope, caller) = admit(&gateway, &uri, &headers, body).await?;
        envelope.message_id = Some(key.clone());
        call_worker(&gateway, id, envelope, &caller).await
    };
    let mut response = answered.await.into_response();
    if let Ok(key) = HeaderValue::from_bytes(key.as_bytes()) {
        response.headers_mut().insert(IDEMPOTENCY_KEY, key);
    }
    response
}

/// The request as the worker will see it, after the checks of shape, credential and group. A request that fails them leaves
/// no row, so it need not reach the broker. The worker makes the other checks.
async fn admit(
    gateway: &Gateway,
    uri: &Uri,
    headers: &HeaderMap,
    body: Result<RequestBody, Problem>,
) -> Result<(Envelope, Caller), Problem> {
    let groupid = query::value(uri.query(), "groupid");
    let mut envelope = caller::envelope(headers, groupid.clone().ok().flatten());
    envelope.content_type = content_type(headers)?;
    envelope.body = body?.0;
    let request = Request::parse(&envelope)?;
    let caller = caller::admit(gateway, &request, &envelope).await?;
    groupid?;
    Ok((envelope, caller))
}

/// Publishes the invite, and waits for the worker's reply.
async fn call_worker(
    gateway: &Gateway,
    id: Uuid,
    envelope: Envelope,
    caller: &Caller,
) -> Result<Response, Problem> {
    let rpc = gateway.rpc()?;
    let paused = caller.group.paused_at.map(|_| gateway.paused_waits.try_acquire());
    let within = match &paused {
        Some(Err(_)) => PAUSED_WAITS_FOR,
        _ => gateway.config.http.timeout,
    };
    failpoint::hit_by("asked", envelope.message_id.as_deref());
    let message = Outgoing::request(&gateway.names, envelope);
    let replied = tokio::select! {
        biased;
        replied = rpc.call(id, message, within.min(gateway.config.http.timeout)) => replied,
        () = gateway.last_call.cancelled() => Err(RpcError::NoReply),
    };
    match replied {
        Ok(reply) => answer(reply),
        Err(RpcError::NotPublished(why)) => {
            Err(Problem::unavailable(format!("the invite was not taken: {why}")))
        }
        Err(RpcError::NoReply) => Err(Problem::new(
            GatewayCode::ReplyTimeout,
            if is_paused(gateway, caller) { GROUP_PAUSED } else { NO_REPLY },
        )),
    }
}

/// Whether the caller's group is paused now: it may not have been when the request came.
fn is_paused(gateway: &Gateway, caller: &Caller) -> bool {
    let groups = gateway.services().map(|services| services.directory.snapshot());
    groups.is_ok_and(|groups| groups.group(caller.group.id).is_some_and(|group| group.paused_at.is_some()))
}

/// The worker's reply as a response. That of a sent invite is passed on as it is.
fn answer(reply: Vec<u8>) -> Result<Response, Problem> {
    #[derive(Deserialize)]
    struct ReplyBody {
        error: Option<ReplyError>,
    }
    match serde_json::from_slice(&reply) {
        Ok(ReplyBody { error: None }) => Ok((StatusCode::OK, [(CONTENT_TYPE, JSON)], reply).into_response()),
        Ok(ReplyBody { error: Some(error) }) => Err(Problem::from_reply(error)),
        Err(error) => {
            tracing::error!(%error, "a worker's reply cannot be read");
            Err(Problem::internal())
        }
    }
}

/// The `Content-Type`, if there is one. One that is not text is refused later as not being JSON.
fn content_type(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut given = headers.get_all(CONTENT_TYPE).iter();
    let first = given.next().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if given.next().is_some() {
        return Err(Refusal::new(Code::RequestMalformed, "Content-Type is repeated"));
    }
    Ok(first)
}

/// The sender's key. An empty one counts as none. One in double quotes, as a structured field has it, is taken without
/// them.
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

/// The value of a structured field's string (RFC 9651, section 4.2.5): in double quotes, in which a backslash may only stand
/// before a quote or a backslash. `None` for other text, which is a key as it is.
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
    fn a_key_in_quotes_is_taken_without_them() {
        for (value, key) in [
            ("abc", Some("abc")),
            ("\"abc\"", Some("abc")),
            ("\"a b\"", Some("a b")),
            ("\"é\"", Some("é")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            ("\"\"", None),
            ("", None),
            // Not a structured field's string: taken as it is.
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
