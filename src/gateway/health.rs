//! `/healthz` and `/readyz` of the gateway; `/metrics`, which is on `HTTP_ADDR` only.

use super::{Gateway, openapi::responses::TooLargeAHead, routes};
use crate::{health, queue::Asking, supervise};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// What readiness depends on.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"ready": true, "publishing": true, "database": true, "backlog": 0, "problems": []}))]
pub struct Readiness {
    ready: bool,
    /// Whether invites can be published.
    publishing: bool,
    /// Whether the database can do what the gateway needs.
    database: bool,
    /// Invites that wait in the queue.
    #[schema(minimum = 0)]
    backlog: Option<u64>,
    /// In words, with what to do.
    problems: Vec<String>,
}

/// Check that the process lives
#[utoipa::path(get, path = routes::HEALTHZ.shown, tag = "Operating", responses(
    (status = 200, description = "The process lives.", body = String, content_type = "text/plain", example = "ok\n"),
    TooLargeAHead,
))]
pub async fn healthz() -> Response {
    "ok\n".into_response()
}

/// Check that the gateway can do its work
///
/// 200 while invites can be published and the database does what the gateway needs.
#[utoipa::path(get, path = routes::READYZ.shown, tag = "Operating", responses(
    (status = 200, description = "It can do its work.", body = Readiness),
    (status = 503, description = "It cannot; `problems` says why.", body = Readiness,
     headers(("Retry-After" = u64, description = "Seconds."))),
    TooLargeAHead,
))]
pub async fn readyz(State(gateway): State<Arc<Gateway>>) -> Response {
    let asking = gateway.asking.get();
    let backlog = asking.and_then(Asking::backlog);
    let why = asking.and_then(Asking::problem);
    let mut of_database = gateway.database.problems();
    if of_database.is_empty() && gateway.services.get().is_none() {
        of_database.push("the groups and the key of the opt-outs were not read yet; see the log".to_owned());
    }
    let mut readiness = readiness(of_database, backlog, why);
    readiness.problems.extend(gateway.remarks());
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// For Prometheus
pub async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    health::exposition(Some(&gateway.metrics)).into_response()
}

fn readiness(of_database: Vec<String>, backlog: Option<u64>, why: Option<String>) -> Readiness {
    let mut problems = Vec::new();
    if backlog.is_none() {
        let why =
            why.unwrap_or_else(|| "the broker is away, or holds publishers back; see the log".to_owned());
        problems.push(format!("invites cannot be published: {why}"));
    }
    let database = of_database.is_empty();
    problems.extend(of_database);
    let ready = problems.is_empty();
    problems.extend(supervise::problems());
    Readiness { ready, publishing: backlog.is_some(), database, backlog, problems }
}
