//! The connections of the process's pool.

use super::kinds;
use crate::metrics::Metric;
use metrics::gauge;
use sqlx::PgPool;
use std::{sync::OnceLock, time::Duration};

const CONNECTIONS: &str = "session_invite_database_connections";
const CONNECTIONS_MAX: &str = "session_invite_database_connections_max";
const POOL_WAIT: &str = "session_invite_database_pool_wait_seconds";
const WAITING: &str = "session_invite_database_statements_waiting";

pub(crate) const METRICS: &[Metric] = &[
    Metric::gauge(CONNECTIONS, "Connections of the process's pool, by what they do now.")
        .by(&["state"], &["in_use", "idle"]),
    Metric::gauge(
        CONNECTIONS_MAX,
        "Connections that the pool may have: DATABASE_MAX_CONNECTIONS without the watch's.",
    ),
    Metric::gauge(
        POOL_WAIT,
        "How long the last measurement waited for a connection of the pool, in seconds; 0 in a gateway.",
    ),
    Metric::gauge(
        WAITING,
        "Statements that wait for the database: they failed as it was away, and are repeated until they work.",
    ),
];

static POOL: OnceLock<PgPool> = OnceLock::new();

/// The pool whose connections are shown.
pub(super) fn show(pool: &PgPool) {
    let _ = POOL.set(pool.clone());
}

/// Reads the pool's state. It asks the database nothing.
pub(crate) fn update() {
    gauge!(WAITING).set(f64::from(u32::try_from(kinds::waiting()).unwrap_or(u32::MAX)));
    let Some(pool) = POOL.get() else { return };
    let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
    gauge!(CONNECTIONS, "state" => "idle").set(idle);
    gauge!(CONNECTIONS, "state" => "in_use").set(pool.size().saturating_sub(idle));
    gauge!(CONNECTIONS_MAX).set(pool.options().get_max_connections());
}

/// How long a measurement has waited for a connection.
pub(crate) fn waited_for_connection(waited: Duration) {
    gauge!(POOL_WAIT).set(waited);
}
