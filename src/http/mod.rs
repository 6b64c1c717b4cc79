//! HTTP/1.1 and 1.0 as a server, for the gateway's public port and for operators: bounded connections, each with little
//! time to say what it wants.

mod arrivals;
mod server;
mod stall;

pub use arrivals::Arrival;
pub use server::{Connections, serve};
