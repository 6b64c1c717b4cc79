//! The limit on misses for each client address: wrong links, and wrong tokens of the console. It is in this gateway's memory,
//! so each gateway allows as many. It works while the database is away.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Addresses in memory at most. Beyond that, those without a recent miss are forgotten, or else all.
const REMEMBERED: usize = 50_000;

/// A bucket for each address, by the generic cell rate algorithm: the moment at which it is full again.
#[derive(Debug)]
pub(crate) struct MissLimit {
    whole: Duration,
    one: Duration,
    full_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl MissLimit {
    /// How many wrong links one address may open.
    pub(super) fn of_links() -> Self {
        Self::new(30, Duration::from_mins(10))
    }

    /// How many wrong tokens of the console one address may send.
    pub(crate) fn of_logins() -> Self {
        Self::new(10, Duration::from_mins(10))
    }

    /// `holds` misses at once, and as many again in each `fills_in`, one at a time.
    pub(super) fn new(holds: u32, fills_in: Duration) -> Self {
        Self { whole: fills_in, one: fills_in / holds.max(1), full_at: Mutex::default() }
    }

    /// Counts a miss. `Err(after)`: the limit is reached and the miss is not counted; the next one is allowed after that time.
    pub(crate) fn count(&self, address: IpAddr) -> Result<(), Duration> {
        let now = Instant::now();
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= REMEMBERED {
            full_at.retain(|_, at| *at > now);
            // A limit on one address does not stop a client that has so many of them.
            if full_at.len() >= REMEMBERED {
                full_at.clear();
            }
        }
        let at = full_at.entry(subscriber(address)).or_insert(now);
        let full = (*at).max(now) + self.one;
        let wait = full.saturating_duration_since(now).saturating_sub(self.whole);
        if wait.is_zero() {
            *at = full;
            Ok(())
        } else {
            Err(wait)
        }
    }

    /// Takes back one miss, which was counted before it was known that it is none.
    pub(crate) fn uncount(&self, address: IpAddr) {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = full_at.get_mut(&subscriber(address)) {
            *at -= self.one;
        }
    }
}

/// One subscriber has a whole /64 of IPv6.
fn subscriber(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_missed_too_often_waits_and_others_do_not() {
        let (limit, begun) = (MissLimit::new(3, Duration::from_mins(1)), Instant::now());
        for _ in 0..3 {
            assert_eq!(limit.count(ip("192.0.2.1")), Ok(()));
        }
        let wait = limit.count(ip("192.0.2.1")).unwrap_err();
        let least = 19.0 - begun.elapsed().as_secs_f64();
        assert!((least..=20.0).contains(&wait.as_secs_f64()), "{wait:?}");
        assert_eq!(limit.count(ip("192.0.2.2")), Ok(()));
    }

    #[test]
    fn what_was_no_miss_is_not_counted() {
        let limit = MissLimit::new(2, Duration::from_mins(1));
        for _ in 0..10 {
            assert_eq!(limit.count(ip("192.0.2.1")), Ok(()));
            limit.uncount(ip("192.0.2.1"));
        }
        assert_eq!(limit.count(ip("192.0.2.1")), Ok(()));
        assert_eq!(limit.count(ip("192.0.2.1")), Ok(()));
        assert!(limit.count(ip("192.0.2.1")).is_err());
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one() {
        let limit = MissLimit::new(1, Duration::from_mins(1));
        assert_eq!(limit.count(ip("2001:db8:1:2::1")), Ok(()));
        assert!(limit.count(ip("2001:db8:1:2:ffff::9")).is_err());
        assert_eq!(limit.count(ip("2001:db8:1:3::1")), Ok(()));
    }

    #[test]
    fn memory_is_bounded() {
        let limit = MissLimit::new(1, Duration::from_mins(1));
        for n in 0..u32::try_from(REMEMBERED).unwrap() + 10 {
            assert_eq!(limit.count(std::net::Ipv4Addr::from_bits(n).into()), Ok(()));
        }
        assert!(limit.full_at.lock().unwrap().len() <= REMEMBERED);
    }
}
