//! How long a claim lasts.

use std::time::Duration;

/// What a claim may take from its statement to the first byte on the connection to the provider. All delays of the worker
/// itself must fit in: a process that was stopped for longer finds its claim expired, and sends nothing.
pub(super) const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// How long a worker that begins a try has the row to itself, by the database's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimTimes {
    /// After this the try has surely ended: the margin for the worker's own delays, and the provider's time-out.
    pub(crate) ends: Duration,
    /// How long the provider's list may lag after that.
    pub(crate) settle: Duration,
}

impl ClaimTimes {
    /// For requests that end within the provider's time-out, and a list that is right after `settle`.
    pub(crate) fn of(timeout: Duration, settle: Duration) -> Self {
        Self { ends: LEASE_MARGIN + timeout, settle }
    }
}

/// A span that the database gave in seconds; a negative one is over.
pub(super) fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
