//! `/metrics`: the recorder, and the form in which a module describes what it counts
//! (<https://prometheus.io/docs/practices/naming/>).
//!
//! Every module owns its metrics, in a `metrics.rs` of its own, and lists them in a `METRICS`.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// In seconds: from a fast provider's milliseconds to a slow provider's time-out.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// One metric, as `/metrics` and docs/METRICS.md describe it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows; its name ends in `_total`.
    Counter,
    Gauge,
    /// A histogram of seconds; its name ends in `_seconds`.
    Seconds,
}

impl Metric {
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: MetricKind::Counter, labels, help }
    }

    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: MetricKind::Gauge, labels, help }
    }

    pub const fn seconds(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: MetricKind::Seconds, labels, help }
    }
}

/// Starts counting, and describes these metrics. Before this, and in commands that never call it, counting does nothing.
///
/// # Errors
///
/// Another recorder is installed already.
pub fn start(owners: &[&[Metric]]) -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .install_recorder()?;
    for metric in owners.iter().copied().flatten() {
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, metric.help),
            MetricKind::Seconds => describe_histogram!(metric.name, Unit::Seconds, metric.help),
        }
    }
    Ok(handle)
}
