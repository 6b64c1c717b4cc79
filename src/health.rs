//! `/healthz`, `/readyz` and `/metrics`: whether the process lives, whether it does its work, and how much of it.

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
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How long the database may take to answer before the worker counts as not ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// What readiness depends on; filled in as the worker starts.
#[derive(Debug, Clone, Default)]
pub struct Health {
    pub consuming: Arc<AtomicBool>,
    pool: Arc<OnceLock<PgPool>>,
    metrics: Arc<OnceLock<PrometheusHandle>>,
}

impl Health {
    /// The database is reached for the first time.
    pub fn has_database(&self, pool: PgPool) {
        let _ = self.pool.set(pool);
    }

    /// What `/metrics` shows.
    pub fn has_metrics(&self, metrics: PrometheusHandle) {
        let _ = self.metrics.set(metrics);
    }

    /// Answers on `addr` until `stop`.
    pub async fn serve(self, addr: SocketAddr, stop: CancellationToken) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::bind(addr).await?;
        tracing::info!(addr = %listener.local_addr()?, "answering /healthz, /readyz and /metrics");
        let routes = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self);
        tokio::spawn(async move {
            axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
        });
        Ok(())
    }

    async fn database_answers(&self) -> bool {
        let Some(pool) = self.pool.get() else { return false };
        let asked = tokio::time::timeout(PATIENCE, sqlx::query("select 1").execute(pool)).await;
        matches!(asked, Ok(Ok(_)))
    }
}

async fn metrics(State(health): State<Health>) -> ([(HeaderName, &'static str); 1], String) {
    // Histograms gather what was recorded since, and are tidied up by being read.
    let text = health.metrics.get().map(PrometheusHandle::render).unwrap_or_default();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn ready(State(health): State<Health>) -> (StatusCode, Json<serde_json::Value>) {
    let (consuming, database) = (health.consuming.load(Ordering::Relaxed), health.database_answers().await);
    let status = if consuming && database { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": consuming && database, "consuming": consuming, "database": database })))
}
