//! Counters of what the sandbox did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use strum::EnumCount;

use super::faults::{CreateOutcome, Fault};

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub posts: AtomicU64,
    pub accepted: AtomicU64,
    pub lists: AtomicU64,
    pub open_connections: Arc<AtomicUsize>,
    pub faults: [AtomicU64; Fault::COUNT],
    pub errors: AtomicU64,
}

impl Counters {
    pub(crate) fn count_outcome(&self, outcome: CreateOutcome) {
        match outcome {
            CreateOutcome::Success => {}
            CreateOutcome::Error { .. } => count(&self.errors),
            CreateOutcome::Fault(fault) => count(&self.faults[fault as usize]),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
