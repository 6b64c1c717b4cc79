//! The gateway's public port: as many connections as the process may have files.

use super::{front, router::router, state::Gateway};
use crate::{
    health,
    http::{self, Arrival, Connections},
    supervise::{Kept, Task, keep_up},
};
use axum::{body::Body, http::Request};
use hyper::body::Incoming;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

/// Connections at most. For the next one, the one that has waited longest for its client is closed.
const MOST_CONNECTIONS: usize = 16_384;
/// Connections that wait to be taken at most, if the kernel allows as many: when one more comes, its client only tries again
/// after a second. All clients of a gateway come at once after it was away.
const WAITING: u32 = 4_096;
/// Descriptors that are not for connections of the public port: the database, the broker, the log; operators.
const OTHER_DESCRIPTORS: usize = 200 + health::MOST_CONNECTIONS;

/// Listens; `start` takes the connections.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As TcpListener::bind does: a gateway that starts again does not wait for its old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(WAITING)
}

/// Takes connections until `stop`. Afterwards requests in hand are answered, and the connections close.
pub fn start(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    connections: Connections,
    stop: CancellationToken,
) -> Kept {
    let listener = Arc::new(listener);
    keep_up(Task::Connections, stop.clone(), move |_| {
        let (gateway, router) = (gateway.clone(), router(gateway.clone()));
        let answering = move |peer, arrival: Arc<Arrival>, request: Request<Incoming>| {
            let (gateway, router) = (gateway.clone(), router.clone());
            async move { front::answer(gateway, router, peer, &arrival, request.map(Body::new)).await }
        };
        http::serve(listener.clone(), most_connections(), connections.clone(), answering, stop.clone())
    })
}

/// As many as the process may have files, once it has asked for as many as it can get.
fn most_connections() -> usize {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limits.maximum,
        Err(_) => limits.current,
    };
    let files = current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    files.saturating_sub(OTHER_DESCRIPTORS).clamp(16, MOST_CONNECTIONS)
}
