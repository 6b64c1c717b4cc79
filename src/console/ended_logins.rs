//! The logins that ended before their time, in this gateway's memory. Other gateways do not know of them, nor does this one after
//! a restart: `CONSOLE_TOKEN` ends all logins everywhere. So no page waits for the database to know who asks.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Logins in memory at most. Each of them needed the token.
const REMEMBERED: usize = 10_000;

/// Ids of logins, each until its cookie is over.
#[derive(Debug, Default)]
pub(super) struct EndedLogins(Mutex<HashMap<String, Instant>>);

impl EndedLogins {
    /// Ends a login, whose cookie is good for so long at most. Where there is no room, the one that is over first is forgotten.
    pub(super) fn end(&self, id: &str, lasts: Duration) {
        let (mut ended, now) = (self.lock(), Instant::now());
        if ended.len() >= REMEMBERED {
            ended.retain(|_, until| *until > now);
        }
        if ended.len() >= REMEMBERED
            && let Some(first) = ended.iter().min_by_key(|(_, until)| **until).map(|(id, _)| id.clone())
        {
            ended.remove(&first);
        }
        ended.insert(id.to_owned(), now + lasts);
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_newest_are_kept() {
        let ended = EndedLogins::default();
        for n in 0..REMEMBERED + 10 {
            ended.end(&n.to_string(), Duration::from_hours(12));
        }
        assert!(ended.lock().len() <= REMEMBERED);
        assert!(!ended.has("0") && ended.has(&(REMEMBERED + 9).to_string()));
        ended.lock().values_mut().for_each(|until| *until = Instant::now());
        ended.end("new", Duration::from_hours(12));
        assert_eq!(ended.lock().len(), 1);
    }
}
