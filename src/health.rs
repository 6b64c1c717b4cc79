//! `/healthz`, `/readyz` and `/metrics`: whether the process runs, whether it does its work, and how much of it.

use crate::{
    db,
    http::{self, ClientWait, OpenConnections},
    invite::Context,
    metrics::{Metric, process},
    nodes::NodeReport,
    processes::{self, Neighbours, ProcessState, SelfReport},
    queue::{self, Cause, ConsumerHealth, Publisher},
    sessions::PausedGroups,
    supervise::{self, Task, keep_running},
};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, Request, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::body::Incoming;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

const READY: &str = "session_invite_ready";
const PROBLEMS: &str = "session_invite_problems";

pub(crate) const METRICS: &[Metric] = &[
    Metric::gauge(READY, "1 while /readyz is 200, else 0."),
    Metric::gauge(
        PROBLEMS,
        "Problems that /readyz lists, without those that only the database knows, that have an alert of their own, or that \
         strangers can cause.",
    ),
];

/// The parts of the worker that readiness depends on. Some are set while the worker starts.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    /// The consumer of the requests queue.
    pub requests: Arc<ConsumerHealth>,
    /// The consumer of the dropped queue.
    pub dropped: Arc<ConsumerHealth>,
    /// Why the database cannot be compared with the broker's last marker.
    pub marker: Arc<Cause>,
    /// Why the broker takes no events.
    pub events: Arc<Cause>,
    /// The exchange of events was gone, and its bindings with it.
    pub unbound: Arc<Cause>,
    pub database: db::Watch,
    /// The other processes that are silent.
    pub neighbours: Neighbours,
    stop: CancellationToken,
    invites: Arc<OnceLock<(Publisher, Arc<Context>)>>,
    paused: Arc<OnceLock<PausedGroups>>,
    metrics: Arc<OnceLock<PrometheusHandle>>,
}

impl Health {
    /// `stop` is cancelled by the signal to stop.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self {
            requests: Arc::default(),
            dropped: Arc::default(),
            marker: Arc::default(),
            events: Arc::default(),
            unbound: Arc::default(),
            database: db::Watch::new(db::kinds::WORKER_STATEMENTS),
            neighbours: Neighbours::default(),
            stop,
            invites: Arc::default(),
            paused: Arc::default(),
            metrics: Arc::default(),
        }
    }

    /// Adds the publisher of replies, the provider, and the groups to the report.
    pub(crate) fn set_invites(&self, publisher: Publisher, invites: Arc<Context>) {
        let _ = self.invites.set((publisher, invites));
    }

    /// For the table of processes.
    pub(crate) fn self_report(&self) -> SelfReport {
        let report = self.report();
        SelfReport { state: report.state, problems: report.problems }
    }

    fn report(&self) -> WorkerReport {
        let mut problems = Vec::new();
        let consuming = self.requests.is_receiving() && !self.stop.is_cancelled();
        if !consuming {
            problems.push(self.why_not_consuming());
        }
        let database_problems = self.database.problems();
        let database = database_problems.is_empty();
        problems.extend(database_problems);
        let (publisher, invites) =
            self.invites.get().map(|(publisher, invites)| (publisher, invites)).unzip();
        let publishing = publisher.is_some_and(Publisher::is_publishing);
        if let Some(publisher) = publisher.filter(|_| !publishing) {
            let why = publisher.problem();
            let why = why.unwrap_or_else(|| "the broker is away, or holds publishers back".to_owned());
            problems.push(format!("replies cannot be published: {why}"));
        }
        // A server or a broker that is away is listed already.
        let beside = self.beside_requests(consuming && database);
        let is_ready = consuming && database && publishing && beside.is_empty();
        problems.extend(beside);
        let provider = invites.map(|invites| invites.sms.report()).unwrap_or_default();
        problems.extend(provider.problems);
        problems.extend(self.requests.backlog_problem().into_iter().chain(self.unbound.get()));
        problems.extend(self.database.node_problems().into_iter().chain(queue::broker_node_problems()));
        problems.extend(supervise::problems().into_iter().chain(processes::files_problem()));
        problems.extend(invites.into_iter().flat_map(|invites| invites.problems()));
        let state = ProcessState::of(self.stop.is_cancelled(), is_ready);
        WorkerReport { consuming, database, publishing, state, provider: provider.state, problems }
    }

    fn why_not_consuming(&self) -> String {
        if self.stop.is_cancelled() {
            let in_flight = self.requests.in_flight() + self.dropped.in_flight();
            return format!(
                "this worker is stopping after a signal: it takes no new invites, finishes the {in_flight} in its hands, and ends \
                 after SHUTDOWN_GRACE at the latest. What to do: wait; a second signal ends it at once, and what it has \
                 goes back to the queue"
            );
        }
        let why = self.requests.problem();
        let why =
            why.unwrap_or_else(|| "the broker is away, or the queue is missing; see the log".to_owned());
        format!("no invites can be received: {why}")
    }

    /// Why the worker cannot do what it does beside the requests. The marker counts only where it could be compared.
    fn beside_requests(&self, marker_counts: bool) -> Vec<String> {
        let dropped = self.dropped.problem();
        let dropped = dropped.map(|why| format!("dropped messages are not answered or set aside: {why}"));
        let events = self.events.get().map(|why| format!("events cannot be published: {why}"));
        let marker = self.marker.get().filter(|_| marker_counts);
        let marker =
            marker.map(|why| format!("the database cannot be compared with the broker's last marker: {why}"));
        dropped.into_iter().chain(events).chain(marker).collect()
    }

    /// Adds the paused groups to the report.
    pub(crate) fn set_paused_groups(&self, paused: PausedGroups) {
        let _ = self.paused.set(paused);
    }

    /// Sets the source of `/metrics`.
    pub(crate) fn set_metrics(&self, metrics: PrometheusHandle) {
        let _ = self.metrics.set(metrics);
    }

    /// Answers on `addr` until `stop`.
    pub(crate) async fn serve(self, addr: SocketAddr, stop: CancellationToken) -> std::io::Result<()> {
        let routes = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self);
        serve(routes, addr, stop).await
    }
}

/// Connections to `HTTP_ADDR` at most: idle ones must not use up the file descriptors of the process.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// Answers these routes on `addr`, until `stop`.
pub(crate) async fn serve(routes: Router, addr: SocketAddr, stop: CancellationToken) -> std::io::Result<()> {
    // The socket outlives the task.
    let listener = Arc::new(tokio::net::TcpListener::bind(addr).await?);
    tracing::info!(addr = %listener.local_addr()?, "answering /healthz, /readyz and /metrics");
    keep_running(Task::Operators, stop.clone(), move |_| {
        let routes = routes.clone();
        let service = move |_, wait, request| answer(routes.clone(), wait, request);
        http::serve(listener.clone(), MAX_CONNECTIONS, OpenConnections::default(), service, stop.clone())
    });
    Ok(())
}

async fn answer(mut routes: Router, wait: Arc<ClientWait>, request: Request<Incoming>) -> Response {
    // No route reads a body. If this is false, the connection is being closed to make room for another.
    if !wait.end() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match routes.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The answer to `/metrics`, in Prometheus's text format. `report` is what the process says of itself now.
pub(crate) fn exposition(
    metrics: Option<&PrometheusHandle>,
    report: &SelfReport,
) -> ([(HeaderName, &'static str); 1], String) {
    gauge!(READY).set(u32::from(report.state == ProcessState::Ready));
    gauge!(PROBLEMS).set(u32::try_from(report.problems.len()).unwrap_or(u32::MAX));
    // Rendering also aggregates what histograms have recorded since the last time.
    let mut text = metrics.map(PrometheusHandle::render).unwrap_or_default();
    text.push_str(&process::exposition());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn metrics(State(health): State<Health>) -> ([(HeaderName, &'static str); 1], String) {
    if let Some((_, invites)) = health.invites.get() {
        invites.authenticator.measure();
    }
    let mut report = health.self_report();
    report.problems.extend(health.neighbours.problems());
    if let Some((_, invites)) = health.invites.get() {
        let left_out = invites.problems_with_an_alert();
        report.problems.retain(|problem| !left_out.contains(problem));
    }
    exposition(health.metrics.get(), &report)
}

/// The nodes of both servers.
pub(crate) fn nodes(database: &db::Watch) -> Vec<NodeReport> {
    database.nodes().into_iter().chain(queue::broker_nodes()).collect()
}

async fn ready(State(health): State<Health>) -> (StatusCode, Json<serde_json::Value>) {
    let mut report = health.report();
    report.problems.extend(health.neighbours.problems());
    if let Some(paused) = health.paused.get() {
        report.problems.extend(paused.problems().await);
    }
    let is_ready = report.state == ProcessState::Ready;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": is_ready,
        "consuming": report.consuming,
        "database": report.database,
        "publishing": report.publishing,
        "provider": report.provider,
        "nodes": nodes(&health.database),
        "problems": report.problems,
    });
    (status, Json(body))
}

/// What the worker can do now, and what is wrong.
#[derive(Debug)]
struct WorkerReport {
    consuming: bool,
    database: bool,
    publishing: bool,
    state: ProcessState,
    provider: &'static str,
    problems: Vec<String>,
}
