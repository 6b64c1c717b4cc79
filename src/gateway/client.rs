//! The address of a request's client, where proxies stand before the gateway.

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

/// The client's address, as far as trusted proxies report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClientAddress(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // `front` puts it into every request.
        Ok(parts.extensions.get().copied().unwrap_or(Self(Ipv4Addr::UNSPECIFIED.into())))
    }
}

/// What sent a request to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestSender {
    /// A proxy of `TRUSTED_PROXIES`. Its headers about the client are believed.
    TrustedProxy,
    /// The client itself, or a proxy that is not trusted.
    Other,
}

/// How long `/readyz` lists a proxy that `TRUSTED_PROXIES` does not name, after its last request.
const LISTED_FOR: Duration = Duration::from_mins(10);

/// The proxies before the gateway: the trusted ones, and one that perhaps should be trusted.
#[derive(Debug)]
pub(super) struct Proxies {
    trusted: Vec<Network>,
    warned: AtomicBool,
    unknown: Mutex<Option<(IpAddr, Instant)>>,
}

impl Proxies {
    pub(super) fn new(trusted: Vec<Network>) -> Self {
        Self { trusted, warned: AtomicBool::new(false), unknown: Mutex::default() }
    }

    /// What the direct peer is.
    pub(super) fn sender(&self, peer: IpAddr) -> RequestSender {
        if self.trusts(peer.to_canonical()) { RequestSender::TrustedProxy } else { RequestSender::Other }
    }

    /// The rightmost address in `X-Forwarded-For` that is not a trusted proxy's, if a trusted proxy sent the request. The
    /// client can write anything to the left of it. Otherwise it is the peer's address.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut nearest = peer.to_canonical();
        if !self.trusts(nearest) {
            if headers.contains_key(X_FORWARDED_FOR) {
                self.note(nearest);
            }
            return ClientAddress(nearest);
        }
        let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
        for entry in lines.iter().rev().flat_map(|line| line.to_str().unwrap_or("?").rsplit(',')) {
            // Some proxies write a word such as `unknown` for a client without an address.
            let Some(address) = entry_address(entry.trim()) else { break };
            nearest = address;
            if !self.trusts(nearest) {
                break;
            }
        }
        ClientAddress(nearest)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// Remembers a proxy that is not trusted. It is logged once only, as any client can send that header.
    fn note(&self, peer: IpAddr) {
        *self.unknown.lock().unwrap_or_else(PoisonError::into_inner) = Some((peer, Instant::now()));
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("{}", seems_missing(peer));
        }
    }

    /// The line for `/readyz`, while such a proxy was seen lately. It is what was seen, and no problem: any client can send that
    /// header.
    pub(super) fn sighting(&self) -> Option<String> {
        let unknown = *self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.filter(|(_, at)| at.elapsed() < LISTED_FOR).map(|(peer, _)| seems_missing(peer))
    }
}

/// How a line begins that says what was seen, which any stranger can bring about.
pub(crate) const SIGHTED: &str = "seen lately:";

fn seems_missing(peer: IpAddr) -> String {
    format!(
        "{SIGHTED} a request with X-Forwarded-For from {peer}. Any client can send that header, but if {peer} is your proxy, \
         TRUSTED_PROXIES seems to be missing it. What to do: if it is your proxy, add it, as until then all visitors behind \
         it count as one address"
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

    fn client_of(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
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
        assert_eq!(client_of("9.9.9.9", &["1.2.3.4"], &[]), "9.9.9.9");
        assert_eq!(client_of("9.9.9.9", &["1.2.3.4"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(client_of("10.1.2.3", &["1.2.3.4"], &["10.0.0.0/8"]), "1.2.3.4");
        assert_eq!(client_of("::ffff:10.1.2.3", &["1.2.3.4"], &["10.1.2.3"]), "1.2.3.4");
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_counts() {
        let proxies = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(client_of("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"], &proxies), "1.2.3.4");
        assert_eq!(client_of("fd00::1", &["6.6.6.6", "1.2.3.4", "fd12::7"], &proxies), "1.2.3.4");
        assert_eq!(client_of("10.0.0.1", &["[2001:db8::1]:4711"], &proxies), "2001:db8::1");
        assert_eq!(client_of("10.0.0.1", &["1.2.3.4:5"], &proxies), "1.2.3.4");
        assert_eq!(client_of("10.0.0.1", &["1.2.3.4, unknown"], &proxies), "10.0.0.1");
        assert_eq!(client_of("10.0.0.1", &[], &proxies), "10.0.0.1");
        assert_eq!(client_of("10.0.0.1", &["10.0.0.3"], &proxies), "10.0.0.3");
    }

    #[test]
    fn a_proxy_that_is_not_named_is_listed() {
        let proxies = proxies(&["10.0.0.0/8"]);
        let mut headers = HeaderMap::new();
        proxies.client("192.0.2.1".parse().unwrap(), &headers);
        headers.append("x-forwarded-for", "1.2.3.4".parse().unwrap());
        proxies.client("10.0.0.1".parse().unwrap(), &headers);
        assert_eq!(proxies.sighting(), None);
        proxies.client("192.0.2.1".parse().unwrap(), &headers);
        let seen = proxies.sighting().unwrap();
        assert!(seen.contains("TRUSTED_PROXIES") && seen.contains("192.0.2.1"), "{seen}");
    }
}
