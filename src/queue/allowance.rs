//! How many dead letters may be left by senders who show no credential, so that they cannot fill the queue.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So many at once.
pub const AT_ONCE: u32 = 100;
/// And one more each time.
const EVERY: Duration = Duration::from_secs(6);

/// A token bucket of one process.
#[derive(Debug)]
pub struct Allowance(Mutex<Option<Bucket>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Allowance {
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether one more fits; it counts then.
    pub fn take(&self) -> bool {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Bucket { left, at } = bucket.unwrap_or(Bucket { left: f64::from(AT_ONCE), at: now });
        let more = now.saturating_duration_since(at).div_duration_f64(EVERY);
        let left = (left + more).min(f64::from(AT_ONCE));
        let fits = left >= 1.0;
        *bucket = Some(Bucket { left: if fits { left - 1.0 } else { left }, at: now });
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_fit_at_once_and_then_one_each_time() {
        let (allowance, begun) = (Allowance::new(), Instant::now());
        let fit = |at, of: u32| (0..of).filter(|_| allowance.take_at(at)).count();
        assert_eq!(fit(begun, 200), 100);
        assert_eq!(fit(begun + EVERY, 10), 1);
        assert_eq!(fit(begun + EVERY * 3, 10), 2);
        assert_eq!(fit(begun + EVERY * 1_000, 200), 100);
    }
}
