//! Whom a request comes from, when proxies stand before the gateway.

use crate::config::Network;
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of whoever asks, as far as trusted proxies tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // Every request has it, by `front`.
        Ok(parts.extensions.get().copied().unwrap_or(Self(Ipv4Addr::UNSPECIFIED.into())))
    }
}

/// How long a proxy that nobody named is listed among the problems after its last request.
const LISTED_FOR: Duration = Duration::from_mins(10);

/// The proxies before the gateway: those that are trusted, and one that perhaps should be.
#[derive(Debug)]
pub struct Proxies {
    trusted: Vec<Network>,
    told: AtomicBool,
    unknown: Mutex<Option<(IpAddr, Instant)>>,
}

impl Proxies {
    pub fn new(trusted: Vec<Network>) -> Self {
        Self { trusted, told: AtomicBool::new(false), unknown: Mutex::default() }
    }

    /// The rightmost address in `X-Forwarded-For` that is no trusted proxy's, when a trusted proxy has sent the request.
    /// What stands left of it is its sender's to write.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut nearest = peer.to_canonical();
        if !self.trusts(nearest) {
            if headers.contains_key(X_FORWARDED_FOR) {
                self.note(nearest);
            }
            return ClientAddress(nearest);
        }
        let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
        for entry in lines.iter().rev().flat_map(|line| line.to_str().unwrap_or("?").rsplit(',')) {
            // A proxy that writes something else than an address says nothing about its client.
            let Some(address) = entry_address(entry.trim()) else { break };
            nearest = address;
            if !self.trusts(nearest) {
                break;
            }
        }
        ClientAddress(nearest)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.holds(address))
    }

    /// The log says it once, as any client can write that header.
    fn note(&self, peer: IpAddr) {
        *self.unknown.lock().unwrap_or_else(PoisonError::into_inner) = Some((peer, Instant::now()));
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!("{}", seems_missing(peer));
        }
    }

    /// What the operator should look at.
    pub fn problem(&self) -> Option<String> {
        let unknown = *self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.filter(|(_, at)| at.elapsed() < LISTED_FOR).map(|(peer, _)| seems_missing(peer))
    }
}

fn seems_missing(peer: IpAddr) -> String {
    format!(
        "TRUSTED_PROXIES seems to be missing: X-Forwarded-For comes from {peer}, which it does not name. If that is your \
         proxy, add it: until then all visitors behind it count as one address"
    )
}

/// Some proxies add a port.
fn entry_address(entry: &str) -> Option<IpAddr> {
    let bare = || entry.trim_start_matches('[').trim_end_matches(']').parse().ok();
    let with_port = || entry.parse().ok().map(|address: SocketAddr| address.ip());
    bare().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        proxies(trusted).client(peer.parse().unwrap(), &headers).0.to_string()
    }

    fn proxies(trusted: &[&str]) -> Proxies {
        Proxies::new(trusted.iter().map(|text| Network::parse(text).unwrap()).collect())
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(seen("9.9.9.9", &["1.2.3.4"], &[]), "9.9.9.9");
        assert_eq!(seen("9.9.9.9", &["1.2.3.4"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(seen("10.1.2.3", &["1.2.3.4"], &["10.0.0.0/8"]), "1.2.3.4");
        assert_eq!(seen("::ffff:10.1.2.3", &["1.2.3.4"], &["10.1.2.3"]), "1.2.3.4");
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_counts() {
        let proxies = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(seen("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"], &proxies), "1.2.3.4");
        assert_eq!(seen("fd00::1", &["6.6.6.6", "1.2.3.4", "fd12::7"], &proxies), "1.2.3.4");
        assert_eq!(seen("10.0.0.1", &["[2001:db8::1]:4711"], &proxies), "2001:db8::1");
        assert_eq!(seen("10.0.0.1", &["1.2.3.4:5"], &proxies), "1.2.3.4");
        assert_eq!(seen("10.0.0.1", &["1.2.3.4, unknown"], &proxies), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &[], &proxies), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["10.0.0.3"], &proxies), "10.0.0.3");
    }

    #[test]
    fn a_proxy_that_is_not_named_is_listed() {
        let proxies = proxies(&["10.0.0.0/8"]);
        let mut headers = HeaderMap::new();
        proxies.client("192.0.2.1".parse().unwrap(), &headers);
        headers.append("x-forwarded-for", "1.2.3.4".parse().unwrap());
        proxies.client("10.0.0.1".parse().unwrap(), &headers);
        assert_eq!(proxies.problem(), None);
        proxies.client("192.0.2.1".parse().unwrap(), &headers);
        let problem = proxies.problem().unwrap();
        assert!(problem.contains("TRUSTED_PROXIES") && problem.contains("192.0.2.1"), "{problem}");
    }
}
