//! What came back of a load, whichever way it went.

use crate::figures::{Cpu, Measure, milliseconds, quantile};
use std::{collections::BTreeMap, time::Duration};

/// Of this many kinds of what is wrong, each is told by itself.
const TOLD: usize = 3;

#[derive(Debug, Default)]
pub struct Outcome {
    pub asked: u32,
    pub answered: u32,
    pub repeated: u32,
    /// Replies that no invite of this load asked for.
    pub strays: u32,
    /// What the replies said instead of `sent`.
    pub others: BTreeMap<String, u32>,
    /// Of HTTP: every other answer than 200, and what came instead of an answer. None of them counts as answered.
    pub failures: BTreeMap<String, u32>,
    /// Of each answered invite, from when it should have been published; in order of length.
    pub latencies: Vec<Duration>,
    /// From the first to the last.
    pub took: Duration,
}

impl Outcome {
    /// Of those that were asked for.
    pub fn settled(&self) -> u32 {
        self.answered + self.failures.values().sum::<u32>()
    }

    /// What must not happen, however slow it is.
    pub fn wrongs(&self) -> Vec<String> {
        let mut wrongs = Vec::new();
        let mut count = |count: u32, what: &str| {
            if count > 0 {
                wrongs.push(format!("{count} of {} {what}", self.asked));
            }
        };
        count(self.asked - self.settled(), "invites without a reply");
        count(self.repeated, "replies came again");
        count(self.strays, "replies that nobody asked for");
        for (said, kinds) in [("replies say", &self.others), ("requests failed:", &self.failures)] {
            for (kind, times) in kinds.iter().take(TOLD) {
                count(*times, &format!("{said} {kind}"));
            }
            count(kinds.values().skip(TOLD).sum(), &format!("{said} other such things"));
        }
        wrongs
    }

    /// Throughput and latencies; CPU and memory are for others to know.
    pub fn measure(&self) -> Measure {
        Measure {
            per_second: f64::from(self.answered) / self.took.as_secs_f64().max(1e-9),
            p50_ms: milliseconds(quantile(&self.latencies, 500)),
            p99_ms: milliseconds(quantile(&self.latencies, 990)),
            max_ms: milliseconds(quantile(&self.latencies, 1_000)),
            cpu: Cpu::default(),
            peak_mib: 0.0,
            gateway_mib: 0.0,
        }
    }
}
