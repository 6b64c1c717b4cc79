//! The parts of the benchmark, and what one measurement is made under.

use serde::{Deserialize, Serialize};

/// What can be run by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// As fast as it goes, one worker, an empty table
    Throughput,
    /// At fixed rates, from the moment at which each invite should have been published
    Latency,
    /// A provider that takes 100 ms
    SlowProvider,
    /// As fast as it goes, beside a table of old sessions
    Growth,
    /// As fast as it goes, with two and with four workers on one queue
    ScaleOut,
    /// Over HTTP, beside the queue alone: as fast as it goes, at fixed rates, and among idle and slow connections
    Gateway,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Takes a message, publishes a reply, waits for its confirm, acknowledges. Nothing else.
    Floor,
    Worker,
    /// A gateway, and the worker behind it.
    Gateway,
}

/// One measurement's conditions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    pub part: Part,
    pub subject: Subject,
    pub invites: u32,
    /// Invites a second; without one, as fast as `WINDOW` lets.
    pub rate: Option<u32>,
    pub workers: u32,
    /// How long the provider takes for a text.
    pub provider_ms: u32,
    /// Old sessions in the table.
    pub rows: u32,
    /// Connections to the gateway that ask for nothing.
    #[serde(default)]
    pub idle: u32,
    /// Connections to the gateway that never end their request.
    #[serde(default)]
    pub slow: u32,
}

/// Unanswered invites at most, where there is no rate.
pub const WINDOW: usize = 2_000;

impl Scenario {
    /// What a line of a table calls it.
    pub fn title(&self) -> String {
        let who = match (self.subject, self.part) {
            (Subject::Floor, _) => "floor".to_owned(),
            (Subject::Worker, Part::Gateway) => "queue alone".to_owned(),
            (Subject::Gateway, _) => "over HTTP".to_owned(),
            (Subject::Worker, Part::SlowProvider) => format!("provider takes {} ms", self.provider_ms),
            (Subject::Worker, Part::Growth) => format!("{} old rows", thousands(self.rows)),
            (Subject::Worker, _) if self.workers == 1 => "one worker".to_owned(),
            (Subject::Worker, _) => format!("{} workers", self.workers),
        };
        let rate = self.rate.map(|rate| format!(", {}/s", thousands(rate)));
        let (idle, slow) = (thousands(self.idle), thousands(self.slow));
        let crowd = (self.idle + self.slow > 0).then(|| format!(", beside {idle} idle and {slow} slow ones"));
        [who, rate.unwrap_or_default(), crowd.unwrap_or_default()].concat()
    }
}

/// `12,345`.
pub fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
