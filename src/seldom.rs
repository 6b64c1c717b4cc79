//! For what anybody can make happen often: counted each time, logged once a minute.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_mins(1);

/// Counts what happens, and says when a line of the log is due.
#[derive(Debug)]
pub struct Seldom(Mutex<Counted>);

#[derive(Debug)]
struct Counted {
    logged: Option<Instant>,
    since: u64,
}

impl Seldom {
    pub const fn new() -> Self {
        Self(Mutex::new(Counted { logged: None, since: 0 }))
    }

    /// One more. Answers how many there were since the last line of the log, if another is due.
    pub fn due(&self) -> Option<u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.since += 1;
        if counted.logged.is_some_and(|logged| logged.elapsed() < EVERY) {
            return None;
        }
        counted.logged = Some(Instant::now());
        Some(std::mem::take(&mut counted.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_and_those_of_the_same_minute_are_not() {
        let seldom = Seldom::new();
        assert_eq!([seldom.due(), seldom.due(), seldom.due()], [Some(1), None, None]);
    }
}
