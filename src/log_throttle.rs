//! Log lines that any sender can cause often: each cause is counted, and at most one line a minute is written.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_mins(1);

/// Counts, and decides when a line of the log is due.
#[derive(Debug)]
pub(crate) struct LogThrottle(Mutex<ThrottleState>);

#[derive(Debug)]
struct ThrottleState {
    logged_at: Option<Instant>,
    /// The count since then.
    count: u64,
}

impl LogThrottle {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(ThrottleState { logged_at: None, count: 0 }))
    }

    /// Counts one more. Returns the count since the last line of the log, if another line is due.
    pub(crate) fn due(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        if state.logged_at.is_some_and(|at| at.elapsed() < EVERY) {
            return None;
        }
        state.logged_at = Some(Instant::now());
        Some(std::mem::take(&mut state.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_and_the_next_ones_of_that_minute_are_not() {
        let throttle = LogThrottle::new();
        assert_eq!([throttle.due(), throttle.due(), throttle.due()], [Some(1), None, None]);
    }
}
