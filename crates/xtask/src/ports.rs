//! Ports, mostly of 127.0.0.1.

use crate::random;
use anyhow::{Context, Result};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

const FIRST: u16 = 20_000;
/// They end below the range that outgoing connections use.
const COUNT: u16 = 12_000;

pub(crate) fn connect(port: u16) -> std::io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(3))
}

pub(crate) fn answers(port: u16) -> bool {
    connect(port).is_ok()
}

/// The same at an IPv4 address.
pub(crate) fn answers_at(place: (&str, u16)) -> bool {
    connect_to(place).is_ok()
}

fn connect_to((address, port): (&str, u16)) -> std::io::Result<TcpStream> {
    let address: Ipv4Addr = address.parse().map_err(std::io::Error::other)?;
    TcpStream::connect_timeout(&SocketAddr::from((address, port)), Duration::from_secs(3))
}

/// The port at the end of an address.
pub(crate) fn of_address(address: &str) -> Result<u16> {
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    port.with_context(|| format!("{address} has no port"))
}

/// A port that nothing listens on.
pub(crate) fn free() -> std::io::Result<u16> {
    loop {
        let port = FIRST + random::below(COUNT)?;
        if !answers(port) {
            return Ok(port);
        }
    }
}

/// Whether an AMQP broker listens there. It answers the protocol header with a method frame, type 1.
pub(crate) fn speaks_amqp(place: (&str, u16)) -> bool {
    let first_byte = || -> std::io::Result<u8> {
        let mut wire = connect_to(place)?;
        wire.set_read_timeout(Some(Duration::from_secs(3)))?;
        wire.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut first = [0];
        wire.read_exact(&mut first)?;
        Ok(first[0])
    };
    first_byte().is_ok_and(|kind| kind == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_free_port_is_below_those_of_outgoing_connections() {
        assert!((FIRST..FIRST + COUNT).contains(&free().unwrap()));
    }

    #[test]
    fn only_a_method_frame_is_a_brokers_answer() {
        for (answer, expected) in [(&b"\x01\x00"[..], true), (b"AMQP", false), (b"", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = std::thread::spawn(move || {
                let (mut wire, _) = listener.accept().unwrap();
                wire.read_exact(&mut [0; 8]).unwrap();
                wire.write_all(answer).unwrap();
            });
            assert_eq!(speaks_amqp(("127.0.0.1", port)), expected, "{answer:?}");
            server.join().unwrap();
        }
    }
}
