//! Why something cannot be done, kept for the callers that are refused meanwhile.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why something cannot be done, in words for an operator, as it was last known; nothing while it can.
#[derive(Debug, Default)]
pub struct Cause(Mutex<Option<String>>);

impl Cause {
    pub fn get(&self) -> Option<String> {
        self.lock().clone()
    }

    pub(super) fn set(&self, why: Option<String>) {
        *self.lock() = why;
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
