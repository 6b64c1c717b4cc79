//! Whom a request comes from, when proxies stand before the gateway.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

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

/// An address, or a network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: u128,
    /// Of the bits of an IPv6 address, as which IPv4 is seen too.
    mask: u128,
}

impl Network {
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "must be an address such as 10.0.0.7, or a network such as 10.0.0.0/8".to_owned();
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let host_bits =
            most - bits.filter(|bits| *bits <= most).or(bits.is_none().then_some(most)).ok_or_else(wrong)?;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Ok(Self { address: as_bits(address) & mask, mask })
    }

    fn holds(&self, address: IpAddr) -> bool {
        as_bits(address) & self.mask == self.address
    }
}

fn as_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The rightmost address in `X-Forwarded-For` that is no trusted proxy's, when a trusted proxy has sent the request.
/// What stands left of it is its sender's to write.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> ClientAddress {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.holds(address));
    let mut nearest = peer.to_canonical();
    if !is_trusted(nearest) {
        return ClientAddress(nearest);
    }
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    for entry in lines.iter().rev().flat_map(|line| line.to_str().unwrap_or("?").rsplit(',')) {
        // A proxy that writes what is no address tells nothing of whoever is behind it.
        let Some(address) = entry_address(entry.trim()) else { break };
        nearest = address;
        if !is_trusted(nearest) {
            break;
        }
    }
    ClientAddress(nearest)
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
        let trusted: Vec<_> = trusted.iter().map(|text| Network::parse(text).unwrap()).collect();
        address(peer.parse().unwrap(), &headers, &trusted).0.to_string()
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
    fn networks_are_addresses_with_a_length() {
        assert!(Network::parse("0.0.0.0/0").unwrap().holds("1.2.3.4".parse().unwrap()));
        assert!(!Network::parse("0.0.0.0/0").unwrap().holds("2001:db8::1".parse().unwrap()));
        assert!(Network::parse("::/0").unwrap().holds("1.2.3.4".parse().unwrap()));
        for bad in ["", "10.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/", "host", "10.0.0.0/-1"] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }
}
