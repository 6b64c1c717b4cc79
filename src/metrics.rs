//! `/metrics`: the recorder, and the type that describes a metric (<https://prometheus.io/docs/practices/naming/>).
//!
//! Each module has its metrics in its own `metrics.rs`, and lists them in a `METRICS`. docs/METRICS.md explains all of them.

pub(crate) mod groups;
pub(crate) mod process;

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// From a statement's half millisecond to a slow provider's time-out.
const STEP_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// The whole way of an invite, which may take several tries and looks.
const WAY_BUCKETS: [f64; 14] =
    [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Since a timestamp of whole seconds: anything below one second would be noise.
const PUBLISHED_BUCKETS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// One metric, as `/metrics` describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    /// The label values of the series that are shown from the start.
    series: Series,
    shown_by: ShownBy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricKind {
    /// It only grows. Its name ends in `_total`.
    Counter,
    Gauge,
    /// A histogram of the seconds of one step.
    StepSeconds,
    /// A histogram of the seconds of an invite's whole way.
    WaySeconds,
    /// A histogram of the seconds since a request's timestamp.
    PublishedSeconds,
}

/// The series that a metric has before anything is counted, so that their first increase is seen.
#[derive(Debug, Clone, Copy)]
enum Series {
    /// The one of a metric without labels.
    Single,
    /// One for each value of the only label.
    Values(&'static [&'static str]),
    /// For each series the values of all labels.
    Computed(fn() -> Vec<Vec<&'static str>>),
}

/// The processes whose `/metrics` has a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShownBy {
    Worker,
    Gateway,
    Both,
}

impl Metric {
    /// Without labels, and in both processes.
    const fn new(name: &'static str, kind: MetricKind, help: &'static str) -> Self {
        Self { name, kind, labels: &[], help, series: Series::Single, shown_by: ShownBy::Both }
    }

    pub(crate) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, MetricKind::Counter, help)
    }

    pub(crate) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, MetricKind::Gauge, help)
    }

    pub(crate) const fn step_seconds(name: &'static str, help: &'static str) -> Self {
        Self::new(name, MetricKind::StepSeconds, help)
    }

    pub(crate) const fn way_seconds(name: &'static str, help: &'static str) -> Self {
        Self::new(name, MetricKind::WaySeconds, help)
    }

    pub(crate) const fn published_seconds(name: &'static str, help: &'static str) -> Self {
        Self::new(name, MetricKind::PublishedSeconds, help)
    }

    /// One label, with all of its values.
    pub(crate) const fn by(self, label: &'static [&'static str; 1], values: &'static [&'static str]) -> Self {
        Self { labels: label, series: Series::Values(values), ..self }
    }

    /// Several labels. `series` makes the values of each series, in the order of the labels.
    pub(crate) const fn by_all(
        self,
        labels: &'static [&'static str],
        series: fn() -> Vec<Vec<&'static str>>,
    ) -> Self {
        Self { labels, series: Series::Computed(series), ..self }
    }

    pub(crate) const fn shown_by(self, shown_by: ShownBy) -> Self {
        Self { shown_by, ..self }
    }

    fn is_shown_by(&self, process: ShownBy) -> bool {
        self.shown_by == ShownBy::Both || self.shown_by == process
    }

    fn describe(&self) {
        match self.kind {
            MetricKind::Counter => describe_counter!(self.name, self.help),
            MetricKind::Gauge => describe_gauge!(self.name, self.help),
            MetricKind::StepSeconds | MetricKind::WaySeconds | MetricKind::PublishedSeconds => {
                describe_histogram!(self.name, Unit::Seconds, self.help);
            }
        }
    }

    /// Makes the series whose values are known, at zero.
    fn show(&self) {
        let all: Vec<Vec<&'static str>> = match self.series {
            Series::Single => vec![Vec::new()],
            Series::Values(values) => values.iter().map(|value| vec![*value]).collect(),
            Series::Computed(series) => series(),
        };
        for values in all {
            let labels: Vec<Label> = self
                .labels
                .iter()
                .zip(values)
                .map(|(label, value)| Label::from_static_parts(label, value))
                .collect();
            match self.kind {
                MetricKind::Counter => counter!(self.name, labels).increment(0),
                MetricKind::Gauge => gauge!(self.name, labels).increment(0.0),
                MetricKind::StepSeconds | MetricKind::WaySeconds | MetricKind::PublishedSeconds => {
                    drop(histogram!(self.name, labels));
                }
            }
        }
    }
}

/// Installs the recorder, and shows the metrics of this process. Until then, and in commands that never call this, counting
/// does nothing.
///
/// # Errors
///
/// A recorder is installed already.
pub(crate) fn start(owners: &[&[Metric]], process: ShownBy) -> Result<PrometheusHandle, BuildError> {
    let shown = || owners.iter().copied().flatten().filter(|metric| metric.is_shown_by(process));
    let mut builder = PrometheusBuilder::new();
    for metric in shown() {
        let buckets: &[f64] = match metric.kind {
            MetricKind::StepSeconds => &STEP_BUCKETS,
            MetricKind::WaySeconds => &WAY_BUCKETS,
            MetricKind::PublishedSeconds => &PUBLISHED_BUCKETS,
            MetricKind::Counter | MetricKind::Gauge => continue,
        };
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
    }
    let handle = builder.install_recorder()?;
    for metric in shown() {
        metric.describe();
        metric.show();
    }
    Ok(handle)
}
