//! `/healthz` and `/readyz` of the gateway; `/metrics`, which is on `HTTP_ADDR` only.

use super::{Gateway, openapi::responses::HeadTooLarge, routes};
use crate::{
    health,
    nodes::NodeReport,
    processes::{self, ProcessState, SelfReport},
    queue::{self, RpcClient},
    supervise,
};
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
#[schema(example = json!({"ready": true, "publishing": true, "database": true, "backlog": 0,
    "nodes": [{"name": "db1.internal:5432", "of": "database", "state": "takes-writes"},
              {"name": "mq1.internal:5672", "of": "broker", "state": "answers"}], "problems": []}))]
pub(super) struct Readiness {
    ready: bool,
    /// Whether invites can be published.
    publishing: bool,
    /// Whether the database can do what the gateway needs.
    database: bool,
    /// Invites that wait in the queue.
    #[schema(minimum = 0)]
    backlog: Option<u64>,
    /// Each node of the database and of the broker.
    nodes: Vec<NodeReport>,
    /// In words, with what to do.
    problems: Vec<String>,
}

/// Check that the process lives
#[utoipa::path(get, path = routes::HEALTHZ.shown, tag = "Operating", responses(
    (status = 200, description = "The process lives.", body = String, content_type = "text/plain", example = "ok\n"),
    HeadTooLarge,
))]
pub(super) async fn healthz() -> Response {
    "ok\n".into_response()
}

/// Check that the gateway can do its work
///
/// 200 while invites can be published and the database does what the gateway needs.
#[utoipa::path(get, path = routes::READYZ.shown, tag = "Operating", responses(
    (status = 200, description = "It can do its work.", body = Readiness),
    (status = 503, description = "It cannot; `problems` says why.", body = Readiness,
     headers(("Retry-After" = u64, description = "Seconds."))),
    HeadTooLarge,
))]
pub(super) async fn readyz(State(gateway): State<Arc<Gateway>>) -> Response {
    let mut readiness = report(&gateway);
    readiness.nodes = health::nodes(&gateway.database);
    readiness.problems.extend(gateway.neighbours.problems());
    readiness.problems.extend(gateway.sighting());
    if let Ok(services) = gateway.services() {
        readiness.problems.extend(services.paused.problems().await);
    }
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// For Prometheus
pub(super) async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    if let Ok(services) = gateway.services() {
        services.authenticator.measure();
    }
    let mut report = gateway.self_report();
    report.problems.extend(gateway.neighbours.problems());
    let left_out: Vec<String> = gateway.remarks_without_count().chain(gateway.sighting()).collect();
    report.problems.retain(|problem| !left_out.contains(problem));
    health::exposition(Some(&gateway.metrics), &report).into_response()
}

/// What the gateway can do now, and what is wrong.
fn report(gateway: &Gateway) -> Readiness {
    let rpc = gateway.rpc.get();
    let backlog = rpc.and_then(RpcClient::backlog);
    let why = rpc.and_then(RpcClient::problem);
    let mut database_problems = gateway.database.problems();
    if database_problems.is_empty() && gateway.services.get().is_none() {
        database_problems
            .push("the groups and the key of the opt-outs were not read yet; see the log".to_owned());
    }
    let mut readiness = readiness(database_problems, backlog, why);
    readiness.problems.extend(gateway.database.node_problems());
    readiness.problems.extend(queue::broker_node_problems());
    readiness.problems.extend(gateway.remarks().chain(processes::files_problem()));
    readiness
}

impl Gateway {
    /// What `/readyz` lists, without the paused groups.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = report(self).problems;
        problems.extend(self.neighbours.problems());
        problems
    }

    /// For the table of processes.
    pub(crate) fn self_report(&self) -> SelfReport {
        let report = report(self);
        let state = ProcessState::of(self.stop.is_cancelled(), report.ready);
        let problems = report.problems.into_iter().chain(self.sighting()).collect();
        SelfReport { state, problems }
    }
}

fn readiness(database_problems: Vec<String>, backlog: Option<u64>, why: Option<String>) -> Readiness {
    let mut problems = Vec::new();
    if backlog.is_none() {
        let why =
            why.unwrap_or_else(|| "the broker is away, or holds publishers back; see the log".to_owned());
        problems.push(format!("invites cannot be published: {why}"));
    }
    let database = database_problems.is_empty();
    problems.extend(database_problems);
    let ready = problems.is_empty();
    problems.extend(supervise::problems());
    Readiness { ready, publishing: backlog.is_some(), database, backlog, nodes: Vec::new(), problems }
}
