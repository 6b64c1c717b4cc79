//! `/sandbox` for tests, and the inbox for people.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::state::SharedState;

const INBOX: &str = include_str!("inbox.html");

pub(super) async fn inbox() -> Response {
    // The nonce allows the page's own script, and no script that the body of a text may contain.
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (headers, INBOX.replace("{{nonce}}", &nonce)).into_response()
}

/// For the health check of a container. The sandbox is ready as soon as it answers.
pub(super) async fn readiness() -> Json<Value> {
    Json(json!({"ready": true, "problems": []}))
}

pub(super) async fn faults(State(state): State<SharedState>) -> Json<Value> {
    Json(state.injector().faults.to_json())
}

/// Changes the settings that the request names, and answers with all settings.
pub(super) async fn set_faults(
    State(state): State<SharedState>,
    body: Bytes,
) -> Result<Json<Value>, Response> {
    // The content type is ignored, so that a plain `curl -d` works.
    let changes: Map<String, Value> = serde_json::from_slice(&body).map_err(|error| {
        refused(StatusCode::BAD_REQUEST, None, &format!("the body must be a JSON object: {error}"))
    })?;
    let mut injector = state.injector();
    injector.faults = injector
        .faults
        .clone()
        .patched(&changes)
        .map_err(|error| refused(StatusCode::BAD_REQUEST, Some(&error.field), &error.reason))?;
    Ok(Json(injector.faults.to_json()))
}

fn refused(status: StatusCode, field: Option<&str>, reason: &str) -> Response {
    (status, Json(json!({"field": field, "error": reason}))).into_response()
}

#[derive(Debug, Deserialize)]
pub(super) struct MessagesQuery {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

/// The messages after one `seq`, oldest first. The header `Sandbox-Epoch` changes when the messages are cleared.
pub(super) async fn messages(
    State(state): State<SharedState>,
    query: Result<Query<MessagesQuery>, QueryRejection>,
) -> Result<Response, Response> {
    let Query(query) =
        query.map_err(|rejection| refused(rejection.status(), None, &rejection.body_text()))?;
    let (messages, epoch) = {
        let store = state.store();
        (store.later_than(query.after, query.limit.unwrap_or(usize::MAX)), store.epoch())
    };
    let now = OffsetDateTime::now_utc();
    let entries: Vec<_> = messages.iter().map(|message| message.inbox_entry(now)).collect();
    Ok(([("sandbox-epoch", format!("{epoch:016x}"))], Json(entries)).into_response())
}

pub(super) async fn clear(State(state): State<SharedState>) -> StatusCode {
    state.store().clear();
    StatusCode::NO_CONTENT
}

pub(super) async fn stats(State(state): State<SharedState>) -> Json<Value> {
    Json(state.stats_json())
}
