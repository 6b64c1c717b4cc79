//! The gateway: invites over HTTP, agents, visitors and the provider's webhooks.

mod agents;
mod clients;
mod connections;
mod crash;
mod docs;
mod invites;
mod outages;
mod receipts;
mod visitor;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{io::Read, net::TcpStream, time::Duration};

/// Lets this process open as many files as the system allows.
fn raise_open_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the limit can be raised");
}

/// Whether the gateway has closed a connection. Reads one byte of an answer, if there is one.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a time-out can be set");
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}
