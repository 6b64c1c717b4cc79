//! `/healthz` and `/readyz`: whether the process lives, and whether it does its work.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
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
}

impl Health {
    /// The database is reached for the first time.
    pub fn has_database(&self, pool: PgPool) {
        let _ = self.pool.set(pool);
    }

    /// Answers on `addr` until `stop`.
    pub async fn serve(self, addr: SocketAddr, stop: CancellationToken) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::bind(addr).await?;
        tracing::info!(addr = %listener.local_addr()?, "answering /healthz and /readyz");
        let routes = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
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

async fn ready(State(health): State<Health>) -> (StatusCode, Json<serde_json::Value>) {
    let (consuming, database) = (health.consuming.load(Ordering::Relaxed), health.database_answers().await);
    let status = if consuming && database { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": consuming && database, "consuming": consuming, "database": database })))
}
