//! Which requests are looked for in the provider's list before their first text: the database has lost rows, and one of
//! theirs may be among them (docs/DELIVERY.md).

use super::{claim_times::ClaimTimes, new_row::RequestRecord, rewinds::Rewinds};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;

/// How far a publisher's clock may be ahead of this machine's.
const CLOCKS_APART: Duration = Duration::from_secs(5);

/// The losses of rows, and for how long a message may be one of those that were published before.
#[derive(Debug, Clone)]
pub(crate) struct Losses {
    pub(crate) rewinds: Rewinds,
    /// Older messages are not texted.
    pub(crate) max_age: Duration,
}

/// The look that comes before a request's first text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LookFirst {
    /// No text of the request can be older.
    pub(super) since: OffsetDateTime,
    /// Seconds until every lost try has surely ended; negative when that is over.
    pub(super) tries_end_in: f64,
}

impl Losses {
    /// Of a database that has lost nothing, for tests.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { rewinds: Rewinds::default(), max_age: Duration::ZERO }
    }

    /// The look that has to come first, if a text of this request may exist without a row.
    ///
    /// That is so for a redelivery, and for a request that was published before the loss was noticed, for as long as such
    /// requests are texted at all. Without a timestamp a request may be one of those until its queue was empty once.
    pub(super) fn look_first(&self, request: &RequestRecord, times: ClaimTimes) -> Option<LookFirst> {
        // Nearly always `None`, which costs one load.
        let noticed = self.rewinds.last()?;
        let now = SystemTime::now();
        let ago = now.duration_since(noticed).unwrap_or_default();
        if ago > self.max_age + times.ends + times.settle {
            return None;
        }
        let was_before = match (request.published, request.published_after) {
            (Some(published), _) => published <= noticed + CLOCKS_APART,
            (None, Some(after)) => after.elapsed() >= ago,
            (None, None) => true,
        };
        if !request.redelivered && !was_before {
            return None;
        }
        let earliest = now.checked_sub(self.max_age + times.settle)?;
        let since = request.published.map_or(earliest, |published| published.min(now));
        let tries_end_in = times.ends.as_secs_f64() - ago.as_secs_f64();
        Some(LookFirst { since: since.into(), tries_end_in })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group_id::GroupId;
    use std::time::Instant;

    const TIMES: ClaimTimes = ClaimTimes { ends: Duration::from_secs(20), settle: Duration::from_secs(30) };
    const MAX_AGE: Duration = Duration::from_mins(10);

    fn seconds_ago(seconds: u64) -> SystemTime {
        SystemTime::now() - Duration::from_secs(seconds)
    }

    fn look(noticed_ago: Option<u64>, published_ago: Option<u64>, redelivered: bool) -> Option<LookFirst> {
        let losses = Losses { rewinds: Rewinds::default(), max_age: MAX_AGE };
        losses.rewinds.set_last(noticed_ago.map(Duration::from_secs));
        let request = RequestRecord {
            published: published_ago.map(seconds_ago),
            redelivered,
            ..RequestRecord::new(GroupId::new(72).unwrap(), "gkey:1".to_owned())
        };
        losses.look_first(&request, TIMES)
    }

    #[test]
    fn what_was_published_before_a_loss_or_comes_again_is_looked_for() {
        assert_eq!(look(None, Some(60), true), None, "nothing was lost");
        assert!(look(Some(30), Some(60), false).is_some(), "published before");
        assert!(look(Some(30), None, false).is_some(), "published at an unknown time");
        assert!(look(Some(30), Some(10), true).is_some(), "comes again");
        assert_eq!(look(Some(30), Some(10), false), None, "published after");
        assert_eq!(look(Some(700), None, true), None, "such messages are too old by now");
    }

    #[test]
    fn without_a_timestamp_a_request_is_newer_than_a_loss_once_its_queue_was_empty() {
        let losses = Losses { rewinds: Rewinds::default(), max_age: MAX_AGE };
        losses.rewinds.set_last(Some(Duration::from_secs(30)));
        let looks = |empty_ago: u64, redelivered| {
            let request = RequestRecord {
                published_after: Instant::now().checked_sub(Duration::from_secs(empty_ago)),
                redelivered,
                ..RequestRecord::new(GroupId::new(72).unwrap(), "gkey:1".to_owned())
            };
            losses.look_first(&request, TIMES).is_some()
        };
        assert!(!looks(20, false));
        assert!(looks(40, false), "the queue was last empty before the loss");
        assert!(looks(20, true), "a redelivery may have had its text");
    }

    #[test]
    fn the_look_goes_back_to_the_publish_or_as_far_as_the_message_can_be_old() {
        let age = |look: Option<LookFirst>| (OffsetDateTime::now_utc() - look.unwrap().since).whole_seconds();
        assert!((59..=75).contains(&age(look(Some(30), Some(60), false))));
        assert!((629..=645).contains(&age(look(Some(30), None, false))));
        assert!(age(look(Some(30), Some(0), true)) <= 10);
    }

    #[test]
    fn a_lost_try_has_ended_a_claims_time_after_the_loss() {
        let ends = |noticed| look(Some(noticed), None, true).unwrap().tries_end_in;
        assert!((ends(0) - 20.0).abs() < 8.0);
        assert!((ends(30) + 10.0).abs() < 8.0);
    }
}
