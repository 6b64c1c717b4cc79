//! Wrong links, by the address that opened them: held in this gateway's memory, so each gateway allows as many.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Addresses that are remembered; beyond it, those that have waited longest are forgotten.
const REMEMBERED: usize = 50_000;

/// A bucket for each address, by the generic cell rate algorithm: the moment at which it is full again.
#[derive(Debug)]
pub struct Misses {
    whole: Duration,
    one: Duration,
    full_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl Misses {
    /// How many wrong links one address may open.
    pub fn of_links() -> Self {
        Self::new(30, Duration::from_mins(10))
    }

    /// So many in that time, and then one at a time as it passes.
    pub fn new(holds: u32, fills_in: Duration) -> Self {
        Self { whole: fills_in, one: fills_in / holds.max(1), full_at: Mutex::default() }
    }

    /// Counts a wrong link. `Err(after)`: it is one too many, and not counted; worth trying again after that.
    pub fn missed(&self, address: IpAddr) -> Result<(), Duration> {
        let now = Instant::now();
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= REMEMBERED {
            full_at.retain(|_, at| *at > now);
            // Whoever has that many addresses is not held up by a limit on one.
            if full_at.len() >= REMEMBERED {
                full_at.clear();
            }
        }
        let at = full_at.entry(household(address)).or_insert(now);
        let full = (*at).max(now) + self.one;
        let wait = full.saturating_duration_since(now).saturating_sub(self.whole);
        if wait.is_zero() {
            *at = full;
            Ok(())
        } else {
            Err(wait)
        }
    }
}

/// Of IPv6, one subscriber has a whole /64.
fn household(address: IpAddr) -> IpAddr {
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
        let misses = Misses::new(3, Duration::from_mins(1));
        for _ in 0..3 {
            assert_eq!(misses.missed(ip("10.0.0.1")), Ok(()));
        }
        let wait = misses.missed(ip("10.0.0.1")).unwrap_err();
        assert!((19.0..=20.0).contains(&wait.as_secs_f64()), "{wait:?}");
        assert_eq!(misses.missed(ip("10.0.0.2")), Ok(()));
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one() {
        let misses = Misses::new(1, Duration::from_mins(1));
        assert_eq!(misses.missed(ip("2001:db8:1:2::1")), Ok(()));
        assert!(misses.missed(ip("2001:db8:1:2:ffff::9")).is_err());
        assert_eq!(misses.missed(ip("2001:db8:1:3::1")), Ok(()));
    }

    #[test]
    fn memory_is_bounded() {
        let misses = Misses::new(1, Duration::from_mins(1));
        for n in 0..u32::try_from(REMEMBERED).unwrap() + 10 {
            assert_eq!(misses.missed(std::net::Ipv4Addr::from_bits(n).into()), Ok(()));
        }
        assert!(misses.full_at.lock().unwrap().len() <= REMEMBERED);
    }
}
