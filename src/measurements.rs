//! One task that measures what `/metrics` shows of queues and tables. A scrape asks neither the broker nor the database.

use crate::{
    group::directory::Directory,
    metrics::{Metric, ShownBy},
    queue::{ConsumerHealth, QueueDepths},
    sessions,
    supervise::{Pulse, Task, keep_running},
};
use metrics::{counter, gauge};
use sqlx::PgPool;
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::Mutex, time::timeout};
use tokio_util::sync::CancellationToken;

/// How often the queues and the outbox are measured.
const EVERY: Duration = Duration::from_secs(10);
/// The keys are measured once in so many rounds: that reads an index entry for each held key.
const KEYS_EVERY: u32 = 6;
/// How long one measurement may take.
const LIMIT: Duration = Duration::from_secs(5);

const MEASURED_AT: &str = "session_invite_measurement_timestamp_seconds";
const FAILURES: &str = "session_invite_measurement_failures_total";
const QUEUES: &str = "queues";
const OUTBOX: &str = "outbox";
const SESSION_KEYS: &str = "session_keys";
const MEASUREMENTS: &[&str] = &[QUEUES, OUTBOX, SESSION_KEYS];

pub(crate) const METRICS: &[Metric] = &[
    Metric::gauge(
        MEASURED_AT,
        "When queues, outbox or session keys were last measured, in seconds since 1970; 0 for never.",
    )
    .by(&["measurement"], MEASUREMENTS)
    .shown_by(ShownBy::Worker),
    Metric::counter(
        FAILURES,
        "Measurements that failed, or took longer than 5 s; the gauges keep their last values.",
    )
    .by(&["measurement"], MEASUREMENTS)
    .shown_by(ShownBy::Worker),
];

/// What is measured, and with what.
#[derive(Debug, Clone)]
pub(crate) struct Measurements {
    pub pool: PgPool,
    pub groups: Arc<Directory>,
    /// Locked by the task, which may be restarted.
    pub queues: Arc<Mutex<QueueDepths>>,
    /// What the consumer of requests knows of their age.
    pub requests: Arc<ConsumerHealth>,
}

impl Measurements {
    /// Measures until `stop`.
    pub(crate) fn start(self, stop: CancellationToken) {
        keep_running(Task::Measurements, stop.clone(), move |pulse| {
            let (all, stop) = (self.clone(), stop.clone());
            async move {
                stop.run_until_cancelled(all.run(&pulse)).await;
            }
        });
    }

    async fn run(&self, pulse: &Pulse) {
        for round in (0..KEYS_EVERY).cycle() {
            pulse.step("measuring the queues");
            let mut queues = self.queues.lock().await;
            note(QUEUES, timeout(LIMIT, queues.measure(&self.requests)).await);
            drop(queues);
            pulse.step("measuring the outbox");
            note(OUTBOX, timeout(LIMIT, sessions::measure_outbox(&self.pool)).await);
            if round == 0 {
                pulse.step("measuring the session keys");
                let groups = self.groups.snapshot();
                note(SESSION_KEYS, timeout(LIMIT, sessions::measure_keys(&self.pool, &groups)).await);
            }
            pulse.idle();
            tokio::time::sleep(EVERY.mul_f64(rand::random_range(0.8..1.2))).await;
        }
    }
}

/// Counts a failure. Why a server does not answer is logged by those who need it.
fn note<T, E: std::fmt::Display, L>(measurement: &'static str, measured: Result<Result<T, E>, L>) {
    match measured {
        Ok(Ok(_)) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            gauge!(MEASURED_AT, "measurement" => measurement).set(now.as_secs_f64());
        }
        Ok(Err(error)) => {
            counter!(FAILURES, "measurement" => measurement).increment(1);
            tracing::debug!(measurement, %error, "a measurement failed");
        }
        Err(_) => {
            counter!(FAILURES, "measurement" => measurement).increment(1);
            tracing::debug!(measurement, "a measurement took too long");
        }
    }
}
