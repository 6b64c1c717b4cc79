//! How many dead letters senders without a credential may leave, so that they cannot fill the queue.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Dead letters at once.
pub(super) const BURST: u32 = 100;
/// The time after which one more may follow.
const REFILL_EVERY: Duration = Duration::from_secs(6);

/// A token bucket, for one process.
#[derive(Debug)]
pub(super) struct Allowance(Mutex<Option<AllowanceBucket>>);

#[derive(Debug, Clone, Copy)]
struct AllowanceBucket {
    left: f64,
    at: Instant,
}

impl Allowance {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether one more dead letter fits. If so, it is counted.
    pub(super) fn take(&self) -> bool {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let AllowanceBucket { left, at } =
            bucket.unwrap_or(AllowanceBucket { left: f64::from(BURST), at: now });
        let more = now.saturating_duration_since(at).div_duration_f64(REFILL_EVERY);
        let left = (left + more).min(f64::from(BURST));
        let fits = left >= 1.0;
        *bucket = Some(AllowanceBucket { left: if fits { left - 1.0 } else { left }, at: now });
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_fits_at_once_and_then_one_each_interval() {
        let (allowance, begun) = (Allowance::new(), Instant::now());
        let fit = |at, of: u32| (0..of).filter(|_| allowance.take_at(at)).count();
        assert_eq!(fit(begun, 200), 100);
        assert_eq!(fit(begun + REFILL_EVERY, 10), 1);
        assert_eq!(fit(begun + REFILL_EVERY * 3, 10), 2);
        assert_eq!(fit(begun + REFILL_EVERY * 1_000, 200), 100);
    }
}
