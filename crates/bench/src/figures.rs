//! The arithmetic: quantiles, medians, ratios, and how numbers are written.

use crate::part::Scenario;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What one measurement found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub cpu: Cpu,
    /// The largest resident memory of one worker, in MiB.
    pub peak_mib: f64,
    /// The gateway's; 0 without one.
    #[serde(default)]
    pub gateway_mib: f64,
}

/// Microseconds of CPU for each invite; `None` for a server whose process cannot be seen from here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    #[serde(default)]
    pub gateway: Option<f64>,
    pub worker: Option<f64>,
    pub postgres: Option<f64>,
    pub broker: Option<f64>,
    pub provider: Option<f64>,
    /// The benchmark's own publisher and reader of replies, or its HTTP client.
    pub publisher: Option<f64>,
    /// All that the machine did, interrupts and other processes among it.
    pub machine: Option<f64>,
}

/// A scenario, and the median of what its rounds found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    #[serde(flatten)]
    pub scenario: Scenario,
    #[serde(flatten)]
    pub measure: Measure,
}

/// The smallest value that so many thousandths of all are not above (nearest rank).
pub fn quantile(sorted: &[Duration], thousandths: usize) -> Duration {
    let rank = (sorted.len() * thousandths).div_ceil(1_000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The middle one, or the mean of the two in the middle; `None` of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (below, above) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(values[below], values[above]))
}

/// `None` where there is nothing to divide by.
pub fn ratio(value: f64, base: f64) -> Option<f64> {
    (base > 0.0).then(|| value / base)
}

pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Measure {
    /// Figure by figure; the memory is the worst of all rounds.
    pub fn of_rounds(rounds: &[Self]) -> Option<Self> {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        let cpu =
            |of: fn(&Cpu) -> Option<f64>| median(rounds.iter().filter_map(|round| of(&round.cpu)).collect());
        Some(Self {
            per_second: of(|round| round.per_second)?,
            p50_ms: of(|round| round.p50_ms)?,
            p99_ms: of(|round| round.p99_ms)?,
            max_ms: of(|round| round.max_ms)?,
            cpu: Cpu {
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
pub fn whole(number: f64) -> String {
    let text = format!("{number:.0}");
    text.parse().map_or(text, crate::part::thousands)
}

/// Two digits that count: `0.42`, `3.1`, `42`.
pub fn short(number: f64) -> String {
    match number {
        n if n < 1.0 => format!("{n:.2}"),
        n if n < 10.0 => format!("{n:.1}"),
        n => whole(n),
    }
}

/// A dash for what is not known.
pub fn or_dash(number: Option<f64>, write: impl Fn(f64) -> String) -> String {
    number.map_or_else(|| "–".to_owned(), write)
}
