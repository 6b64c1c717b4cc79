//! How long the messages of a queue wait, by looks at it every few seconds, for operators.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How far the looks go back.
const WINDOW: Duration = Duration::from_mins(1);
/// Looks over a shorter time show no rate.
const SHORTEST: Duration = Duration::from_secs(5);
/// Fewer messages than this may wait for a moment at any time.
const MANY: u64 = 20;
/// A backlog that takes longer is a problem: invites grow too old meanwhile.
const TAKES_LONG: Duration = Duration::from_mins(1);

/// One look at a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLook {
    pub at: Instant,
    /// Messages that no consumer has.
    pub waiting: u64,
    /// What this process was delivered since its start.
    pub deliveries: u64,
}

/// The looks of the last minute.
#[derive(Debug, Default)]
pub(super) struct Backlog(Mutex<VecDeque<QueueLook>>);

impl Backlog {
    pub(super) fn note(&self, look: QueueLook) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while looks.front().is_some_and(|old| look.at.saturating_duration_since(old.at) > WINDOW) {
            looks.pop_front();
        }
        looks.push_back(look);
    }

    /// The problem, if the messages that wait need long at the present rate. `in_hand` is what this process works on.
    pub(super) fn problem(&self, in_hand: u64) -> Option<String> {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = *looks.back()?;
        // Since when many have waited without a break.
        let first = *looks.iter().rev().take_while(|look| look.waiting >= MANY).last()?;
        let span = last.at.saturating_duration_since(first.at);
        // A connection that is lost leaves old looks behind.
        let is_old = last.at.elapsed() > WINDOW;
        if is_old || span < SHORTEST {
            return None;
        }
        let (seconds, waiting) = (span.as_secs_f64(), count(last.waiting));
        let rate = count(last.deliveries.saturating_sub(first.deliveries)) / seconds;
        let grows = waiting - count(first.waiting);
        let bound = TAKES_LONG.as_secs_f64();
        // Others may take more of them than this worker does.
        if waiting < rate * bound || waiting < -grows / seconds * bound {
            return None;
        }
        let needs = if rate > 0.0 {
            format!("alone it would need {:.0} minutes", (waiting / rate / 60.0).ceil())
        } else {
            "takes none of them".to_owned()
        };
        Some(format!(
            "{} invites wait in the queue, {grows:+} within {seconds:.0} s: this worker has {in_hand} in its hands, takes {rate:.1} \
             more a second, and {needs}. Those that become older than INVITE_MAX_AGE are not texted. What to do: correct what else \
             is listed here; if nothing is, start another worker: session-invite worker; or, if SMS_PER_SECOND, SMS_CONCURRENCY or \
             PREFETCH holds them up, raise it",
            last.waiting
        ))
    }
}

/// As a number to compute a rate with.
fn count(messages: u64) -> f64 {
    u32::try_from(messages).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(looks: &[(u64, u64, u64)]) -> Backlog {
        let (backlog, now) = (Backlog::default(), Instant::now());
        let start = now.checked_sub(Duration::from_secs(30)).unwrap();
        for &(seconds, waiting, deliveries) in looks {
            let at = start + Duration::from_secs(seconds);
            backlog.note(QueueLook { at, waiting, deliveries });
        }
        backlog
    }

    #[test]
    fn a_backlog_that_needs_more_than_a_minute_is_a_problem() {
        let problem = backlog(&[(0, 290, 0), (10, 300, 10)]).problem(7).unwrap();
        for part in [
            "300 invites wait",
            "+10 within 10 s",
            "takes 1.0 more a second",
            "7 in its hands",
            "need 5 minutes",
        ] {
            assert!(problem.contains(part), "{part:?} is not in {problem}");
        }
        // Before that the queue was empty.
        assert!(
            backlog(&[(0, 0, 0), (8, 300, 0), (18, 300, 0)])
                .problem(0)
                .unwrap()
                .contains("takes none of them")
        );
        assert!(backlog(&[(0, 300, 0), (10, 300, 0)]).problem(0).unwrap().contains("takes none of them"));
    }

    #[test]
    fn a_short_one_a_fast_one_and_one_that_has_just_begun_are_none() {
        for looks in [
            &[(0, 5, 0), (10, 5, 0)][..],
            &[(0, 300, 0), (10, 300, 60)],
            // Others take them.
            &[(0, 400, 0), (10, 300, 10)],
            &[(0, 300, 0), (2, 300, 0)],
            &[(0, 0, 0), (10, 300, 0)],
            &[],
        ] {
            assert_eq!(backlog(looks).problem(0), None, "{looks:?}");
        }
    }
}
