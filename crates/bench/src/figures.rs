//! The figures of measurements, their arithmetic, and their format.

use crate::scenario::{Scenario, thousands};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The figures of one measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub cpu: CpuPerInvite,
    /// The largest resident memory of one worker, in MiB.
    pub peak_mib: f64,
    /// The same of the gateway; 0 without a gateway.
    #[serde(default)]
    pub gateway_mib: f64,
}

/// Microseconds of CPU for each invite. `None` for a server whose process this one cannot see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CpuPerInvite {
    #[serde(default)]
    pub gateway: Option<f64>,
    pub worker: Option<f64>,
    pub postgres: Option<f64>,
    pub broker: Option<f64>,
    pub provider: Option<f64>,
    /// The benchmark itself: its publisher and its reader of replies, or its HTTP client.
    pub publisher: Option<f64>,
    /// The whole machine, with interrupts and other processes.
    pub machine: Option<f64>,
}

/// A scenario, and the medians of its rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScenarioResult {
    #[serde(flatten)]
    pub scenario: Scenario,
    #[serde(flatten)]
    pub figures: Figures,
}

/// The smallest value that at least this many thousandths of all values do not exceed (nearest rank).
pub(crate) fn quantile(sorted: &[Duration], thousandths: usize) -> Duration {
    let rank = (sorted.len() * thousandths).div_ceil(1_000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The value in the middle, or the mean of the two in the middle. `None` without a value.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (below, above) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(values[below], values[above]))
}

/// `None` if the base is not positive.
pub(crate) fn ratio(value: f64, base: f64) -> Option<f64> {
    (base > 0.0).then(|| value / base)
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Figures {
    /// The median of each figure. The memory is the largest of all rounds.
    pub(crate) fn of_rounds(rounds: &[Self]) -> Option<Self> {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        let cpu = |of: fn(&CpuPerInvite) -> Option<f64>| {
            median(rounds.iter().filter_map(|round| of(&round.cpu)).collect())
        };
        Some(Self {
            per_second: of(|round| round.per_second)?,
            p50_ms: of(|round| round.p50_ms)?,
            p99_ms: of(|round| round.p99_ms)?,
            max_ms: of(|round| round.max_ms)?,
            cpu: CpuPerInvite {
                gateway: cpu(|cpu| cpu.gateway),
                worker: cpu(|cpu| cpu.worker),
                postgres: cpu(|cpu| cpu.postgres),
                broker: cpu(|cpu| cpu.broker),
                provider: cpu(|cpu| cpu.provider),
                publisher: cpu(|cpu| cpu.publisher),
                machine: cpu(|cpu| cpu.machine),
            },
            peak_mib: rounds.iter().map(|round| round.peak_mib).fold(0.0, f64::max),
            gateway_mib: rounds.iter().map(|round| round.gateway_mib).fold(0.0, f64::max),
        })
    }
}

/// `12,345`, rounded.
pub(crate) fn whole(number: f64) -> String {
    let text = format!("{number:.0}");
    text.parse().map_or(text, thousands)
}

/// Two significant digits for small numbers: `0.42`, `3.1`, `42`.
pub(crate) fn short(number: f64) -> String {
    match number {
        n if n < 1.0 => format!("{n:.2}"),
        n if n < 10.0 => format!("{n:.1}"),
        n => whole(n),
    }
}

/// A dash for an unknown number.
pub(crate) fn or_dash(number: Option<f64>, format: impl Fn(f64) -> String) -> String {
    number.map_or_else(|| "–".to_owned(), format)
}
