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

use super::state::Shared;

const INBOX: &str = include_str!("inbox.html");

pub(super) async fn inbox() -> Response {
    // The nonce lets the page's own script run, and none that a text's body might smuggle in.
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

/// For the health check of a container. What answers is ready.
pub(super) async fn readiness() -> Json<Value> {
    Json(json!({"ready": true, "problems": []}))
}

pub(super) async fn faults(State(state): State<Shared>) -> Json<Value> {
    Json(state.fate().faults.to_json())
}

/// Changes what the request names, and answers all settings.
pub(super) async fn set_faults(State(state): State<Shared>, body: Bytes) -> Result<Json<Value>, Response> {
    // Whatever the content type says, so that a plain `curl -d` does.
    let changes: Map<String, Value> = serde_json::from_slice(&body).map_err(|error| {
        refused(StatusCode::BAD_REQUEST, None, &format!("a JSON object is wanted: {error}"))
    })?;
    let mut fate = state.fate();
    fate.faults = fate
        .faults
        .clone()
        .patched(&changes)
        .map_err(|bad| refused(StatusCode::BAD_REQUEST, Some(&bad.field), &bad.reason))?;
    Ok(Json(fate.faults.to_json()))
}

fn refused(status: StatusCode, field: Option<&str>, reason: &str) -> Response {
    (status, Json(json!({"field": field, "error": reason}))).into_response()
}

#[derive(Debug, Deserialize)]
pub(super) struct Window {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

/// The messages after one `seq`, oldest first; `Sandbox-Epoch` changes when they begin anew.
pub(super) async fn messages(
    State(state): State<Shared>,
    window: Result<Query<Window>, QueryRejection>,
) -> Result<Response, Response> {
    let Query(window) =
        window.map_err(|rejection| refused(rejection.status(), None, &rejection.body_text()))?;
    let (messages, epoch) = {
        let store = state.store();
        (store.later_than(window.after, window.limit.unwrap_or(usize::MAX)), store.epoch())
    };
    let now = OffsetDateTime::now_utc();
    let records: Vec<_> = messages.iter().map(|message| message.record(now)).collect();
    Ok(([("sandbox-epoch", format!("{epoch:016x}"))], Json(records)).into_response())
}

pub(super) async fn clear(State(state): State<Shared>) -> StatusCode {
    state.store().clear();
    StatusCode::NO_CONTENT
}

pub(super) async fn stats(State(state): State<Shared>) -> Json<Value> {
    Json(state.stats_json())
}
