//! Who connects, and how a connection is set for it.

use std::time::Duration;

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Worker,
    Gateway,
    /// An operator's question, which may well read a whole table.
    Command,
}

impl Client {
    /// Settings of a connection. Statements of processes must never read a whole table. A plan is made once for a
    /// connection, maybe when the tables are empty: so it must be right for full ones. Those of the URL come last, and win.
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

    /// How long an idle connection is used without a sign of life. A request must not be what finds a closed one; the
    /// worker's statements are repeated.
    pub(super) fn trusts_for(self) -> Option<Duration> {
        match self {
            Self::Worker => Some(Duration::from_secs(1)),
            // In a burst a sign of life for each statement would be half of the work.
            Self::Gateway => Some(Duration::from_millis(20)),
            Self::Command => None,
        }
    }
}
