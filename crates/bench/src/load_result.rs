//! The result of a load, over the queue or over HTTP.

use crate::figures::{CpuPerInvite, Figures, milliseconds, quantile};
use std::{collections::BTreeMap, time::Duration};

/// How many different wrong replies, and how many different failures, a report shows.
const KINDS_SHOWN: usize = 3;

#[derive(Debug, Default)]
pub(crate) struct LoadResult {
    pub requested: u32,
    pub answered: u32,
    /// Replies to invites that had a reply already.
    pub repeated: u32,
    /// Replies that belong to no invite of this load.
    pub strays: u32,
    /// Replies that are not `sent`, with their number.
    pub other_replies: BTreeMap<String, u32>,
    /// Over HTTP: answers other than 200, and lost connections, with their number. They do not count as answered.
    pub failures: BTreeMap<String, u32>,
    /// For each answered invite, the time from when it was due to its reply. Sorted at the end of the load.
    pub latencies: Vec<Duration>,
    /// From the start to the last reply.
    pub duration: Duration,
}

impl LoadResult {
    /// How many of the requested invites were answered or failed.
    pub(crate) fn settled(&self) -> u32 {
        self.answered + self.failures.values().sum::<u32>()
    }

    /// What must not happen, however slow the worker is.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let mut count = |count: u32, what: &str| {
            if count > 0 {
                violations.push(format!("{count} of {} {what}", self.requested));
            }
        };
        count(self.requested - self.settled(), "invites without a reply");
        count(self.repeated, "replies repeated");
        count(self.strays, "replies without an invite");
        for (prefix, kinds) in [("replies are", &self.other_replies), ("requests failed:", &self.failures)] {
            for (kind, times) in kinds.iter().take(KINDS_SHOWN) {
                count(*times, &format!("{prefix} {kind}"));
            }
            count(kinds.values().skip(KINDS_SHOWN).sum(), &format!("{prefix} of other kinds"));
        }
        violations
    }

    /// Throughput and latencies. The caller adds CPU and memory.
    pub(crate) fn figures(&self) -> Figures {
        Figures {
            per_second: f64::from(self.answered) / self.duration.as_secs_f64().max(1e-9),
            p50_ms: milliseconds(quantile(&self.latencies, 500)),
            p99_ms: milliseconds(quantile(&self.latencies, 990)),
            max_ms: milliseconds(quantile(&self.latencies, 1_000)),
            cpu: CpuPerInvite::default(),
            peak_mib: 0.0,
            gateway_mib: 0.0,
        }
    }
}
