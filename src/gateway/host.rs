//! The header `Host`, by RFC 9112, section 3.2.

use crate::refusal::{Code, Refusal};
use axum::http::{HeaderMap, Version, header::HOST};
use std::net::Ipv6Addr;

/// A request of HTTP/1.1 needs one `Host`. No request may have two, or an invalid one.
pub(super) fn check(version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    let refused = |what: &str| Err(Refusal::new(Code::RequestMalformed, what).field("Host"));
    let mut given = headers.get_all(HOST).iter();
    match (given.next(), given.next()) {
        (None, _) if version <= Version::HTTP_10 => Ok(()),
        (None, _) => refused("the header Host is missing"),
        (Some(_), Some(_)) => refused("the header Host is repeated"),
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => refused("the header Host is not a host name or address with an optional port"),
    }
}

/// `uri-host [ ":" port ]` (RFC 9110, section 7.2); an http URI has no empty host.
fn is_host(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let bracketed = text.strip_prefix('[').and_then(|text| text.split_once(']'));
    let (is_good, rest) = if let Some((address, rest)) = bracketed {
        (address.parse::<Ipv6Addr>().is_ok(), rest)
    } else {
        let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
        (is_name(name), rest)
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_good && (port.is_empty() || (rest.len() > port.len() && is_port(port)))
}

/// A registered name or an IPv4 address (RFC 3986, section 3.2.2).
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&b);
    let mut parts = name.split('%');
    let is_code = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    !name.is_empty()
        && parts.next().is_some_and(|first| first.bytes().all(plain))
        && parts.all(|part| is_code(part) && part.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: Version, hosts: &[&[u8]]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, axum::http::HeaderValue::from_bytes(host).unwrap());
        }
        check(version, &headers).is_ok()
    }

    #[test]
    fn http_1_1_has_one_host() {
        assert!(!checked(Version::HTTP_11, &[]));
        assert!(!checked(Version::HTTP_11, &[b"x", b"x"]));
        assert!(checked(Version::HTTP_10, &[]));
        assert!(!checked(Version::HTTP_10, &[b"x", b"y"]));
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for good in
            ["x", "Example.COM", "a_b-c.d.", "127.0.0.1:8080", "[::1]", "[::1]:80", "x:", "%41b", "x:65535"]
        {
            assert!(checked(Version::HTTP_11, &[good.as_bytes()]), "{good}");
        }
        let bad = [
            "", " ", ":80", "a b", "a,b c", "x/y", "x?y", "x#y", "u@x", "x:y", "x:8:8", "x:65536", "x:+80",
            "::1", "[::1", "[x]", "[::1]80", "[::1]:x", "%", "%4", "%zz", "é", "x\\y", "<x>", "http://x",
        ];
        for bad in bad {
            assert!(!checked(Version::HTTP_11, &[bad.as_bytes()]), "{bad:?}");
        }
        assert!(!checked(Version::HTTP_11, &[b"\xff"]));
    }
}
