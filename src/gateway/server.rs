//! Connections: HTTP/1.1 and 1.0, many of them, each with little time to say what it wants.

use super::{
    Gateway,
    arrivals::{Arrival, Arrivals},
    front, router,
    stall::Stalling,
};
use crate::supervise::{Kept, Task, aside_in, keep_up};
use axum::{Router, body::Body, http::Request};
use futures::future::BoxFuture;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A request's head has to come whole within this, and the next one on a connection that is kept.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request's head; above that, and above the HTTP library's 100 headers, the answer is 431.
const LARGEST_HEAD: usize = 32 * 1024;
/// Connections at most. For the next one, the one that has waited longest for its client is closed.
const MOST_CONNECTIONS: usize = 16_384;
/// Connections that wait to be taken at most, if the kernel allows as many: when one more comes, its client only tries again
/// after a second. All clients of a gateway come at once after it was away.
const WAITING: u32 = 4_096;
/// Descriptors that are not for connections: the database, the broker, the log.
const OTHER_DESCRIPTORS: usize = 200;
/// How long a connection without a request in hand may take to end once the gateway stops.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);
/// Before the next connection is taken, when none can be.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections that are open.
#[derive(Debug, Clone, Default)]
pub struct Connections(TaskTracker);

impl Connections {
    /// Waits until all are closed, which they only do once the gateway stops.
    pub async fn closed(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// Listens; `serve` takes the connections.
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
        serve(gateway.clone(), listener.clone(), connections.clone(), stop.clone())
    })
}

async fn serve(
    gateway: Arc<Gateway>,
    listener: Arc<TcpListener>,
    connections: Connections,
    stop: CancellationToken,
) {
    let router = router(gateway.clone());
    let places = Arc::new(Semaphore::new(most_connections()));
    let arrivals = Arc::new(Arrivals::default());
    let mut told = false;
    loop {
        let next = async {
            let accepted = listener.accept().await?;
            Ok((accepted, room(&places, &arrivals).await))
        };
        let Some(accepted) = stop.run_until_cancelled(next).await else { return };
        match accepted {
            Ok(((stream, peer), place)) => {
                told = false;
                let (gateway, router, stop) = (gateway.clone(), router.clone(), stop.clone());
                let arrival = arrivals.arrive();
                aside_in(&connections.0, "a connection of the gateway", async move {
                    let _place = place;
                    converse(gateway, router, stream, peer, arrival, stop).await;
                });
            }
            // Whoever hung up before being taken costs nobody else anything.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !told {
                    told = true;
                    tracing::warn!(%error, "no connection can be taken; trying again until it works");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A place for one more connection, of one that is closed for it where all are taken.
async fn room(places: &Arc<Semaphore>, arrivals: &Arrivals) -> Option<OwnedSemaphorePermit> {
    let place = places.clone().acquire_owned();
    tokio::pin!(place);
    tokio::select! {
        biased;
        place = &mut place => return place.ok(),
        () = arrivals.make_room() => {}
    }
    // The semaphore is never closed.
    place.await.ok()
}

/// One connection, to its end.
async fn converse(
    gateway: Arc<Gateway>,
    router: Router,
    stream: TcpStream,
    peer: SocketAddr,
    arrival: Arrival,
    stop: CancellationToken,
) {
    // Answers are small and whole: there is nothing to wait for.
    let _ = stream.set_nodelay(true);
    let arrival = Arc::new(arrival);
    let arriving = arrival.clone();
    let peer = peer.ip();
    // Boxed, so that a connection without a request has no room for one about.
    let service = service_fn(move |request| -> BoxFuture<'static, Result<_, Infallible>> {
        Box::pin(answer(gateway.clone(), router.clone(), peer, arriving.clone(), request))
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_header_size(LARGEST_HEAD)
        .max_buf_size(LARGEST_HEAD);
    let connection = builder.serve_connection(TokioIo::new(Stalling::new(stream)), service);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        // An error is a client that went away, or was too slow: it is nobody's to mend.
        _ = connection.as_mut() => return,
        () = arrival.closed() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    while tokio::time::timeout(LEAVES_WITHIN, connection.as_mut()).await.is_err() {
        // Nobody waits for a request that is not there yet.
        if arrival.is_waiting() {
            return;
        }
    }
}

async fn answer(
    gateway: Arc<Gateway>,
    router: Router,
    peer: IpAddr,
    arrival: Arc<Arrival>,
    request: Request<Incoming>,
) -> Result<axum::response::Response, Infallible> {
    let response = front::answer(gateway, router, peer, &arrival, request.map(Body::new)).await;
    // For the client to read the answer, and to ask again.
    arrival.begin();
    Ok(response)
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

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
