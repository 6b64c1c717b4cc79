//! `/healthz`, `/readyz` and `/metrics`: whether the process lives, whether it does its work, and how much of it.

use crate::{
    queue::{Consuming, Publisher},
    sms::Sms,
    supervise::{self, Task, keep_up},
};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use sqlx::PgPool;
use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How long the database may take to answer before the worker counts as not ready.
const PATIENCE: Duration = Duration::from_secs(2);

pub const NO_DATABASE: &str = "the database does not answer: is it running where DATABASE_URL points?";

/// What readiness depends on; filled in as the worker starts.
#[derive(Debug, Clone, Default)]
pub struct Health {
    pub consuming: Arc<Consuming>,
    pool: Arc<OnceLock<PgPool>>,
    outside: Arc<OnceLock<(Publisher, Sms)>>,
    metrics: Arc<OnceLock<PrometheusHandle>>,
}

impl Health {
    /// The database is reached for the first time.
    pub fn has_database(&self, pool: PgPool) {
        let _ = self.pool.set(pool);
    }

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

/// Answers operators on `addr`, by these routes, until `stop`.
pub async fn serve(routes: Router, addr: SocketAddr, stop: CancellationToken) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(addr).await?;
    tracing::info!(addr = %listener.local_addr()?, "answering /healthz, /readyz and /metrics");
    // The socket outlives the task.
    let listener = listener.into_std()?;
    keep_up(Task::Operators, stop.clone(), move |_| {
        let (listening, routes, stop) = (listener.try_clone(), routes.clone(), stop.clone());
        async move {
            let served = async {
                let listener = tokio::net::TcpListener::from_std(listening?)?;
                axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
            };
            if let Err(error) = served.await {
                tracing::warn!(%error, "operators are not answered");
            }
        }
    });
    Ok(())
}

/// Whether a database that was reached before answers soon.
pub async fn answers(pool: Option<&PgPool>) -> bool {
    let Some(pool) = pool else { return false };
    let asked = tokio::time::timeout(PATIENCE, sqlx::query("select 1").execute(pool)).await;
    matches!(asked, Ok(Ok(_)))
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
    let (consuming, database) = (health.consuming.is_fresh(), answers(health.pool.get()).await);
    let outside = health.outside.get();
    let publishing = outside.is_some_and(|(publisher, _)| publisher.is_publishing());
    let refused = outside.and_then(|(_, sms)| sms.account_refused());
    let mut problems = Vec::new();
    if !consuming {
        let why = health.consuming.problem();
        let why = why.unwrap_or_else(|| "the broker is away, or its queue; see the log".to_owned());
        problems.push(format!("no invites can come: {why}"));
    }
    if !database {
        problems.push(NO_DATABASE.to_owned());
    }
    if outside.is_some() && !publishing {
        let why = outside.and_then(|(publisher, _)| publisher.problem());
        let why = why.unwrap_or_else(|| "the broker is away, or holds publishers back".to_owned());
        problems.push(format!("replies cannot be published: {why}"));
    }
    if let Some(code) = refused {
        problems.push(format!("the provider refuses the operator's account ({code}): check TWILIO_*"));
    }
    problems.extend(supervise::problems());
    let ready = consuming && database && publishing;
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
