//! `TRUSTED_PROXIES`: addresses and networks.

use std::net::{IpAddr, Ipv4Addr};

/// An address, or a network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: u128,
    /// Of the bits of an IPv6 address. IPv4 is mapped to IPv6.
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

    /// Whether all addresses are in it, or all of IPv4.
    pub(super) fn is_everything(&self) -> bool {
        self.contains(Ipv4Addr::UNSPECIFIED.into()) && self.contains(Ipv4Addr::BROADCAST.into())
    }

    /// Whether the address is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        as_bits(address) & self.mask == self.address
    }
}

fn as_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_addresses_with_a_length() {
        assert!(Network::parse("0.0.0.0/0").unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!(!Network::parse("0.0.0.0/0").unwrap().contains("2001:db8::1".parse().unwrap()));
        assert!(Network::parse("::/0").unwrap().contains("1.2.3.4".parse().unwrap()));
        for (text, is_everything) in
            [("0.0.0.0/0", true), ("::/0", true), ("10.0.0.0/8", false), ("2001:db8::/32", false)]
        {
            assert_eq!(Network::parse(text).unwrap().is_everything(), is_everything, "{text}");
        }
        for bad in ["", "10.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/", "host", "10.0.0.0/-1"] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }
}
