//! Which program connects, and the settings of its connections.

use std::time::Duration;

/// The program that connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatabaseClient {
    Worker,
    Gateway,
    /// An operator's command, which may read a whole table.
    Command,
}

impl DatabaseClient {
    /// The settings of a connection. A worker's or gateway's statements must never read a whole table. A connection makes
    /// each plan once, perhaps while the tables are empty, so the plan must be right for full tables too. The URL's settings
    /// come last, and win.
    pub(super) fn settings(self, of_the_url: &[(String, String)]) -> Vec<(String, String)> {
        let ours: &[(&str, &str)] = match self {
            Self::Worker | Self::Gateway => &[
                ("plan_cache_mode", "force_generic_plan"),
                ("enable_seqscan", "off"),
                ("max_parallel_workers_per_gather", "0"),
                ("jit", "off"),
                ("statement_timeout", "15s"),
                ("lock_timeout", "5s"),
                ("idle_in_transaction_session_timeout", "60s"),
            ],
            Self::Command => &[
                ("statement_timeout", "30s"),
                ("lock_timeout", "10s"),
                ("idle_in_transaction_session_timeout", "60s"),
            ],
        };
        let ours = ours.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        ours.chain(of_the_url.iter().cloned()).collect()
    }

    /// How long a connection may be idle and still be used without a ping. A gateway's request must not meet a closed
    /// connection. A worker's statements are repeated, so that it may wait longer.
    pub(super) fn trusts_idle_for(self) -> Option<Duration> {
        match self {
            Self::Worker => Some(Duration::from_secs(1)),
            // In a burst, a ping before each statement would be half of the work.
            Self::Gateway => Some(Duration::from_millis(20)),
            Self::Command => None,
        }
    }
}
