//! `/healthz`, `/readyz` and `/metrics`: whether the process lives, whether it does its work, and how much of it.

use crate::{
    db,
    http::{self, Arrival, Connections},
    queue::{Cause, Consuming, Publisher},
    sms::Sms,
    supervise::{self, Task, keep_up},
};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, Request, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::body::Incoming;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

/// What readiness depends on; filled in as the worker starts.
#[derive(Debug, Clone)]
pub struct Health {
    pub consuming: Arc<Consuming>,
    /// The same for what the broker dropped.
    pub dropped: Arc<Consuming>,
    /// Why the broker takes no events.
    pub events: Arc<Cause>,
    pub database: db::Watch,
    outside: Arc<OnceLock<(Publisher, Sms)>>,
    metrics: Arc<OnceLock<PrometheusHandle>>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            consuming: Arc::default(),
            dropped: Arc::default(),
            events: Arc::default(),
            database: db::Watch::new(db::kinds::OF_THE_WORKER),
            outside: Arc::default(),
            metrics: Arc::default(),
        }
    }
}

impl Health {
    /// Whose troubles are told beside what readiness depends on.
    pub fn tells_of(&self, publisher: Publisher, sms: Sms) {
        let _ = self.outside.set((publisher, sms));
    }

    /// What `/metrics` shows.
    pub fn has_metrics(&self, metrics: PrometheusHandle) {
        let _ = self.metrics.set(metrics);
    }

    /// Answers on `addr` until `stop`.
    pub async fn serve(self, addr: SocketAddr, stop: CancellationToken) -> std::io::Result<()> {
        let routes = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self);
        serve(routes, addr, stop).await
    }
}

/// Connections of operators at most: those that are idle must not use up the descriptors of the process.
pub const MOST_CONNECTIONS: usize = 64;

/// Answers operators on `addr`, by these routes, until `stop`.
pub async fn serve(routes: Router, addr: SocketAddr, stop: CancellationToken) -> std::io::Result<()> {
    // The socket outlives the task.
    let listener = Arc::new(tokio::net::TcpListener::bind(addr).await?);
    tracing::info!(addr = %listener.local_addr()?, "answering /healthz, /readyz and /metrics");
    keep_up(Task::Operators, stop.clone(), move |_| {
        let routes = routes.clone();
        let answering = move |_, arrival, request| answer(routes.clone(), arrival, request);
        http::serve(listener.clone(), MOST_CONNECTIONS, Connections::default(), answering, stop.clone())
    });
    Ok(())
}

async fn answer(mut routes: Router, arrival: Arc<Arrival>, request: Request<Incoming>) -> Response {
    // No route reads a body. `false`: the connection is being closed for another one.
    if !arrival.is_whole() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match routes.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The answer to `/metrics`.
pub fn exposition(metrics: Option<&PrometheusHandle>) -> ([(HeaderName, &'static str); 1], String) {
    // Histograms gather what was recorded since, and are tidied up by being read.
    let text = metrics.map(PrometheusHandle::render).unwrap_or_default();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn metrics(State(health): State<Health>) -> ([(HeaderName, &'static str); 1], String) {
    exposition(health.metrics.get())
}

async fn ready(State(health): State<Health>) -> (StatusCode, Json<serde_json::Value>) {
    let consuming = health.consuming.is_fresh();
    let of_database = health.database.problems();
    let database = of_database.is_empty();
    let outside = health.outside.get();
    let publishing = outside.is_some_and(|(publisher, _)| publisher.is_publishing());
    let refused = outside.and_then(|(_, sms)| sms.account_refused());
    let mut problems = Vec::new();
    if !consuming {
        let why = health.consuming.problem();
        let why = why.unwrap_or_else(|| "the broker is away, or its queue; see the log".to_owned());
        problems.push(format!("no invites can come: {why}"));
    }
    problems.extend(of_database);
    if outside.is_some() && !publishing {
        let why = outside.and_then(|(publisher, _)| publisher.problem());
        let why = why.unwrap_or_else(|| "the broker is away, or holds publishers back".to_owned());
        problems.push(format!("replies cannot be published: {why}"));
    }
    let dropped = health.dropped.problem();
    let dropped = dropped.map(|why| format!("what the broker dropped is not answered: {why}"));
    let events = health.events.get().map(|why| format!("events cannot be published: {why}"));
    let works = dropped.is_none() && events.is_none();
    problems.extend(dropped.into_iter().chain(events));
    if let Some(code) = refused {
        problems.push(format!("the provider refuses the operator's account ({code}): check TWILIO_*"));
    }
    problems.extend(supervise::problems());
    let ready = consuming && database && publishing && works;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let provider = if refused.is_some() { "refuses the account" } else { "ok" };
    let body = json!({
        "ready": ready,
        "consuming": consuming,
        "database": database,
        "publishing": publishing,
        "provider": provider,
        "problems": problems,
    });
    (status, Json(body))
}
