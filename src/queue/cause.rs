//! Why something does not work, kept for readiness and for the callers that are refused meanwhile.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The last known reason why something does not work, for an operator; empty while it works.
#[derive(Debug, Default)]
pub(crate) struct Cause(Mutex<Option<String>>);

impl Cause {
    pub(crate) fn get(&self) -> Option<String> {
        self.lock().clone()
    }

    pub(super) fn set(&self, why: Option<String>) {
        *self.lock() = why;
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
