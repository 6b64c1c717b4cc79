//! The gateway's public port. The process's limit of open files bounds its connections.

use super::{front, router::router, state::Gateway};
use crate::{
    health,
    http::{self, ClientWait, OpenConnections},
    supervise::{Task, TaskHandle, keep_running},
};
use axum::{Router, body::Body, http::Request};
use hyper::body::Incoming;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

/// Connections at most. For the next one, the one that has waited longest for its client is closed.
const MOST_CONNECTIONS: usize = 16_384;
/// The listen backlog, if the kernel allows as much. A client beyond it tries again only after a second, and after an outage
/// all clients of a gateway connect at once.
const LISTEN_BACKLOG: u32 = 4_096;
/// Descriptors that are not for connections of the public port: the database, the broker, the log; operators.
const OTHER_DESCRIPTORS: usize = 200 + health::MAX_CONNECTIONS;

/// Listens. `start` accepts the connections.
pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As TcpListener::bind does: a gateway that restarts need not wait until the kernel forgets its old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(LISTEN_BACKLOG)
}

/// Accepts connections until `stop`. `console` has the addresses below `/console`. Then requests in flight are answered, and the connections close.
pub(crate) fn start(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    console: Option<Router>,
    connections: OpenConnections,
    stop: CancellationToken,
) -> TaskHandle {
    let listener = Arc::new(listener);
    keep_running(Task::Connections, stop.clone(), move |_| {
        let (gateway, router) = (gateway.clone(), router(gateway.clone(), console.clone()));
        let answer = move |peer, wait: Arc<ClientWait>, request: Request<Incoming>| {
            let (gateway, router) = (gateway.clone(), router.clone());
            async move { front::answer(gateway, router, peer, &wait, request.map(Body::new)).await }
        };
        http::serve(listener.clone(), most_connections(), connections.clone(), answer, stop.clone())
    })
}

/// As many as the limit of open files allows, which is raised to its maximum first.
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
