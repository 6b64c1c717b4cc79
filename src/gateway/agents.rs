//! What agents do with a session key: look the session up, join it, end it.

use super::{
    Gateway, RequestBody, Services,
    caller::{self, AgentRequest, from_database},
    openapi::responses::{EndProblems, JoinProblems, LookUpProblems},
    problem::{GatewayCode, Problem},
    query, routes,
};
use crate::{
    db,
    invite::{Caller, reply::to_the_second, request},
    limits::GuessRefusal,
    pasted,
    refusal::{Code, Refusal},
    session_key::SessionKey,
    sessions::{self, EndResult, LiveSession, Status},
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, Uri, header::CONTENT_TYPE},
};
use serde::Serialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use utoipa::ToSchema;
use uuid::Uuid;

const SESSION_KEY: &str = "sessionKey";
/// How long the gateway tries to end a session whose text is being handed over. That mostly takes a moment.
const END_TRIED_FOR: Duration = Duration::from_secs(2);
/// Between two of these tries.
const END_TRIED_EVERY: Duration = Duration::from_millis(100);
/// `Retry-After` when too many look-ups of a group wait for one another. Most of them are answered by then.
const LOOK_UPS_RETRY_AFTER: Duration = Duration::from_secs(2);

/// A live session
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Session, example = json!({
    "sessionId": "01a20b80-29bb-75db-be48-b9bc3223500c", "sessionKey": "123456", "groupid": 72, "status": "sent",
    "sessiontype": 1, "sessionParams": {"camera": "back", "resolution": "352x288"},
    "createdAt": "2026-11-23T20:00:00Z", "expiresAt": "2026-11-23T20:10:00Z", "joinedAt": null,
}))]
pub(super) struct SessionBody {
    session_id: Uuid,
    #[schema(pattern = "^[0-9]{4,12}$")]
    session_key: String,
    #[schema(minimum = 1)]
    groupid: i64,
    status: LiveStatus,
    #[schema(required)]
    sessiontype: Option<i32>,
    #[schema(value_type = Object)]
    session_params: serde_json::Value,
    #[schema(format = "date-time")]
    created_at: String,
    /// When the session expires if no agent has joined.
    #[schema(required, format = "date-time")]
    expires_at: Option<String>,
    #[schema(required, format = "date-time")]
    joined_at: Option<String>,
}

/// The status of a session that can be joined, or `ended`
#[derive(Serialize, ToSchema, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[schema(as = Status)]
enum LiveStatus {
    Sending,
    Sent,
    Delivered,
    Undelivered,
    Unknown,
    Joined,
    Ended,
}

/// The key of a session
#[derive(ToSchema)]
#[schema(as = SessionKey, example = json!({"sessionKey": "123456"}))]
#[expect(
    dead_code,
    reason = "the body is read field by field; this type describes it in the OpenAPI document"
)]
pub(super) struct KeyBody {
    /// From the text.
    #[schema(pattern = "^[0-9]{4,12}$", rename = "sessionKey")]
    session_key: String,
}

impl From<LiveSession> for SessionBody {
    fn from(live: LiveSession) -> Self {
        let status = match live.status {
            Status::Ended => LiveStatus::Ended,
            // Joined while its text is being handed over. The text's outcome is recorded later.
            _ if live.joined_at.is_some() => LiveStatus::Joined,
            Status::Sending => LiveStatus::Sending,
            Status::Sent => LiveStatus::Sent,
            Status::Delivered => LiveStatus::Delivered,
            Status::Undelivered => LiveStatus::Undelivered,
            Status::Joined => LiveStatus::Joined,
            Status::Unknown | Status::Expired | Status::Rejected | Status::Failed => LiveStatus::Unknown,
        };
        Self {
            session_id: live.id,
            session_key: live.session_key.as_str().to_owned(),
            groupid: live.group_id,
            status,
            sessiontype: live.session_type,
            session_params: live.session_params,
            created_at: to_the_second(live.created_at),
            expires_at: live.expires_at.map(to_the_second),
            joined_at: live.joined_at.map(to_the_second),
        }
    }
}

/// Look up a live session
///
/// Wrong keys are counted, per user and per group; too many are answered 429.
#[utoipa::path(get, path = routes::SESSION.shown, tag = "Sessions",
    params(
        ("groupid" = i64, Query, description = "The caller's group. The credential must belong to it.", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 72),
        ("sessionKey" = String, Query, description = "From the text.", pattern = "^[0-9]{4,12}$", example = "123456"),
    ),
    responses((status = 200, description = "The session.", body = SessionBody, content_type = "application/json"), LookUpProblems),
    security(("authorization" = []), ("gssnid" = [])))]
pub(super) async fn look_up(
    State(gateway): State<Arc<Gateway>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<SessionBody>, Problem> {
    let caller = caller::agent(&gateway, &headers, &uri, AgentRequest::LookUp).await?;
    let key = key(query::value(uri.query(), SESSION_KEY)?)?;
    let pool = &gateway.services()?.pool;
    let looking = sessions::look_up(pool, caller.group.id, &key);
    let found = guess(&gateway, &caller, looking, Option::is_none).await?;
    found.map(|live| Json(live.into())).ok_or_else(not_found)
}

/// Join a live session
///
/// A session may be joined many times; `joinedAt` is the first time. A joined session does not expire: it lasts until it is
/// ended, for at most 12 hours or what the group has set.
#[utoipa::path(post, path = routes::JOIN.shown, tag = "Sessions",
    params(
        ("groupid" = i64, Query, description = "The caller's group. The credential must belong to it.", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 72),
    ),
    request_body(content = KeyBody, content_type = "application/json"),
    responses((status = 200, description = "The session, joined.", body = SessionBody, content_type = "application/json"), JoinProblems),
    security(("authorization" = []), ("gssnid" = [])))]
pub(super) async fn join(
    State(gateway): State<Arc<Gateway>>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<RequestBody, Problem>,
) -> Result<Json<SessionBody>, Problem> {
    let (caller, key) = caller_and_key(&gateway, &uri, &headers, body, AgentRequest::Join).await?;
    let pool = &gateway.services()?.pool;
    let joining = sessions::join(pool, caller.group.id, &key);
    let joined = guess(&gateway, &caller, joining, Option::is_none).await?;
    joined.map(|live| Json(live.into())).ok_or_else(not_found)
}

/// End a live session
///
/// The key is not given to another session for 24 hours, or what the group has set. A group that is switched off can end
/// its sessions, and do nothing else.
#[utoipa::path(post, path = routes::END.shown, tag = "Sessions",
    params(
        ("groupid" = i64, Query, description = "The caller's group. The credential must belong to it.", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 72),
    ),
    request_body(content = KeyBody, content_type = "application/json"),
    responses((status = 200, description = "The session, ended.", body = SessionBody, content_type = "application/json"), EndProblems),
    security(("authorization" = []), ("gssnid" = [])))]
pub(super) async fn end(
    State(gateway): State<Arc<Gateway>>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<RequestBody, Problem>,
) -> Result<Json<SessionBody>, Problem> {
    let (caller, key) = caller_and_key(&gateway, &uri, &headers, body, AgentRequest::End).await?;
    let pool = &gateway.services()?.pool;
    let (since, group) = (Instant::now(), caller.group.id);
    let is_wrong = |ending: &EndResult| matches!(ending, EndResult::NotLive);
    let mut ending = guess(&gateway, &caller, sessions::end(pool, group, &key), is_wrong).await?;
    loop {
        match ending {
            EndResult::Ended(live) => return Ok(Json(live.into())),
            EndResult::NotLive => return Err(not_found()),
            EndResult::NotSettled if since.elapsed() >= END_TRIED_FOR => {
                let message = "the session's text is on its way; end it in a moment";
                return Err(
                    Problem::new(GatewayCode::SessionNotSettled, message).retry_after(Duration::from_secs(1))
                );
            }
            EndResult::NotSettled => {
                tokio::time::sleep(END_TRIED_EVERY).await;
                ending = from_database(sessions::end(pool, group, &key)).await?;
            }
        }
    }
}

/// Shape, credential, group, fields: the order of the contract's section 7.
async fn caller_and_key(
    gateway: &Gateway,
    uri: &Uri,
    headers: &HeaderMap,
    body: Result<RequestBody, Problem>,
    wanted: AgentRequest,
) -> Result<(Caller, SessionKey), Problem> {
    let body = body?.0;
    let json = key_json(headers, &body)?;
    let caller = caller::agent(gateway, headers, uri, wanted).await?;
    let text = json.map(|json| serde_json::from_str(json).map_err(|_| wrong_key())).transpose()?;
    Ok((caller, key(text)?))
}

/// The JSON of the field `sessionKey`, if the body has it. The whole body is checked, and the field is not.
fn key_json<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Option<&'a str>, Refusal> {
    let malformed = |message: String| Refusal::new(Code::RequestMalformed, message);
    if headers.get_all(CONTENT_TYPE).iter().any(|given| !given.to_str().is_ok_and(request::is_json)) {
        let message = "the Content-Type must be application/json, or unset".to_owned();
        return Err(malformed(message).status(415));
    }
    let text = std::str::from_utf8(body)
        .map_err(|error| malformed(format!("the body is not UTF-8 from byte {} on", error.valid_up_to())))?;
    let fields =
        request::object(text).map_err(|what| malformed(format!("the body is not a request: {what}")))?;
    let json = fields.into_iter().find(|(name, _)| name == SESSION_KEY).map(|(_, raw)| raw.get());
    Ok(json.filter(|json| *json != "null"))
}

fn key(given: Option<String>) -> Result<SessionKey, Refusal> {
    let Some(text) = given else {
        return Err(Refusal::new(Code::FieldMissing, "sessionKey is missing").field(SESSION_KEY));
    };
    SessionKey::parse(&text).ok_or_else(|| {
        let refusal = wrong_key();
        match pasted::stray(&text) {
            Some(stray) => Refusal { message: format!("{}, and holds {stray}", refusal.message), ..refusal },
            None => refusal,
        }
    })
}

fn wrong_key() -> Refusal {
    Refusal::new(Code::FieldInvalid, "sessionKey must be a string of 4 to 12 digits, 0 to 9")
        .field(SESSION_KEY)
}

fn not_found() -> Problem {
    Problem::new(GatewayCode::SessionNotFound, "the group has no live session with this key")
}

/// Runs a query by a session key, unless this user or group has tried too many wrong keys.
async fn guess<T>(
    gateway: &Gateway,
    caller: &Caller,
    by_key: impl Future<Output = Result<T, db::Error>>,
    is_wrong: impl Fn(&T) -> bool,
) -> Result<T, Problem> {
    let Services { guesses, .. } = gateway.services()?;
    let permit = from_database(guesses.permit(caller.group.id, &caller.requested_by)).await?;
    let permit = permit.map_err(|refusal| match refusal {
        GuessRefusal::TooManyWrong(after) => {
            Refusal::new(Code::RateLimited, "too many session keys were wrong").retry_after(after).into()
        }
        GuessRefusal::TooManyWait => {
            Problem::unavailable("too many look-ups of this group wait").retry_after(LOOK_UPS_RETRY_AFTER)
        }
    })?;
    let answer = from_database(by_key).await?;
    // A wrong key is counted before it is answered. `front` finishes this also when the client has hung up.
    if is_wrong(&answer) && from_database(permit.count_wrong()).await.is_err() {
        permit.count_locally();
    }
    Ok(answer)
}
