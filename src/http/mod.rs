//! HTTP/1.1 and 1.0 as a server, for the gateway's public port and for operators: a bounded number of connections, each
//! with time limits for its requests.

mod client_waits;
mod server;
mod stall;

pub(crate) use client_waits::ClientWait;
pub(crate) use server::{OpenConnections, serve};
