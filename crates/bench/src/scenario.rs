//! The parts of the benchmark, and the conditions of one measurement.

use serde::{Deserialize, Serialize};

/// A part of the benchmark, which `--only` can select.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BenchPart {
    /// As fast as it goes, one worker, an empty table
    Throughput,
    /// At fixed rates, from the time at which each invite is due
    Latency,
    /// A provider that takes 100 ms
    SlowProvider,
    /// As fast as it goes, with old sessions in the table
    Growth,
    /// As fast as it goes, with two and with four workers on one queue
    ScaleOut,
    /// As fast as it goes, with two and with four queues behind a consistent-hash exchange, a worker for each; only if it is
    /// named, as the broker needs a plugin: ./dev shards has it
    Shards,
    /// Over HTTP, and over the queue alone: as fast as it goes, at fixed rates, and beside idle and slow connections
    Gateway,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subject {
    /// Takes a message, publishes a reply, waits for its confirm, acknowledges. Nothing else.
    Floor,
    Worker,
    /// A gateway, and the worker behind it.
    Gateway,
}

/// The conditions of one measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scenario {
    pub part: BenchPart,
    pub subject: Subject,
    pub invites: u32,
    /// Invites per second. Without a rate, as fast as [`MAX_UNANSWERED`] allows.
    pub rate: Option<u32>,
    pub workers: u32,
    /// Queues of requests behind an exchange, with a worker each. 0: one queue, without an exchange.
    #[serde(default)]
    pub shards: u32,
    /// How long the provider takes for a text, in milliseconds.
    pub provider_ms: u32,
    /// Old sessions in the table.
    pub rows: u32,
    /// Connections to the gateway that send nothing.
    #[serde(default)]
    pub idle: u32,
    /// Connections to the gateway that never end their request.
    #[serde(default)]
    pub slow: u32,
}

/// The largest number of unanswered invites, where there is no rate.
pub(crate) const MAX_UNANSWERED: usize = 2_000;

impl Scenario {
    /// Its name in tables and in the plot.
    pub(crate) fn title(&self) -> String {
        let subject = match (self.subject, self.part) {
            (Subject::Floor, _) => "floor".to_owned(),
            (Subject::Worker, BenchPart::Gateway) => "queue alone".to_owned(),
            (Subject::Gateway, _) => "over HTTP".to_owned(),
            (Subject::Worker, BenchPart::SlowProvider) => format!("provider takes {} ms", self.provider_ms),
            (Subject::Worker, BenchPart::Growth) => format!("{} old rows", thousands(self.rows)),
            (Subject::Worker, BenchPart::Shards) => format!("{} shards", self.shards),
            (Subject::Worker, _) if self.workers == 1 => "one worker".to_owned(),
            (Subject::Worker, _) => format!("{} workers", self.workers),
        };
        let rate = self.rate.map(|rate| format!(", {}/s", thousands(rate)));
        let (idle, slow) = (thousands(self.idle), thousands(self.slow));
        let crowd = (self.idle + self.slow > 0).then(|| format!(", beside {idle} idle and {slow} slow ones"));
        [subject, rate.unwrap_or_default(), crowd.unwrap_or_default()].concat()
    }
}

/// `12,345`.
pub(crate) fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
