//! Accepts connections and serves HTTP/1.1 and 1.0 on them: a bounded number of connections, each with time limits.

use super::{
    client_waits::{ClientWait, ClientWaits},
    stall::StallTimeout,
};
use crate::supervise::spawn_work_in;
use axum::{http::Request, response::Response};
use futures::future::BoxFuture;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The whole head of a request has to arrive within this, also that of the next request on a kept connection.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request's head; above that, and above the HTTP library's 100 headers, the answer is 431.
const LARGEST_HEAD: usize = 32 * 1024;
/// How long a connection without a request in flight may take to close once the gateway stops.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);
/// Before `accept` is tried again after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections that are open.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenConnections(TaskTracker);

impl OpenConnections {
    /// Waits until all are closed. They close only once the gateway stops.
    pub(crate) async fn closed(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// Accepts connections of `listener`, `most` at a time, until `stop`. Then requests in flight are answered, and the
/// connections close. For one more connection, the one that has waited longest for its client is closed.
///
/// `answer` gets the peer's address, and ends the [`ClientWait`] when the whole request has arrived.
pub(crate) async fn serve<A, F>(
    listener: Arc<TcpListener>,
    most: usize,
    connections: OpenConnections,
    answer: A,
    stop: CancellationToken,
) where
    A: Fn(IpAddr, Arc<ClientWait>, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(most));
    let waits = Arc::new(ClientWaits::default());
    let mut warned = false;
    loop {
        let next = async {
            let accepted = listener.accept().await?;
            Ok((accepted, permit(&permits, &waits).await))
        };
        let Some(accepted) = stop.run_until_cancelled(next).await else { return };
        match accepted {
            Ok(((stream, peer), permit)) => {
                warned = false;
                let (answer, stop) = (answer.clone(), stop.clone());
                let wait = waits.add();
                spawn_work_in(&connections.0, "a connection by HTTP", async move {
                    let _permit = permit;
                    serve_connection(answer, stream, peer, wait, stop).await;
                });
            }
            // The client hung up before its connection was accepted. The next one needs no pause.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !warned {
                    warned = true;
                    tracing::warn!(%error, "no connection can be accepted; trying again until it works");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A permit for one more connection. Where all are taken, another connection is closed for it.
async fn permit(permits: &Arc<Semaphore>, waits: &ClientWaits) -> Option<OwnedSemaphorePermit> {
    let permit = permits.clone().acquire_owned();
    tokio::pin!(permit);
    tokio::select! {
        biased;
        permit = &mut permit => return permit.ok(),
        () = waits.make_room() => {}
    }
    // The semaphore is never closed.
    permit.await.ok()
}

/// Serves one connection to its end.
async fn serve_connection<A, F>(
    answer: A,
    stream: TcpStream,
    peer: SocketAddr,
    wait: ClientWait,
    stop: CancellationToken,
) where
    A: Fn(IpAddr, Arc<ClientWait>, Request<Incoming>) -> F + Clone,
    F: Future<Output = Response> + Send + 'static,
{
    // Each answer is written at once, so waiting for more data would only delay it.
    let _ = stream.set_nodelay(true);
    let wait = Arc::new(wait);
    let of_requests = wait.clone();
    let peer = peer.ip();
    // Boxed: a connection without a request then needs no memory for one.
    let service = service_fn(move |request| -> BoxFuture<'static, Result<_, Infallible>> {
        let (answering, wait) = (answer(peer, of_requests.clone(), request), of_requests.clone());
        Box::pin(async move {
            let response = answering.await;
            // For the client to read the answer, and to send its next request.
            wait.begin();
            Ok(response)
        })
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_header_size(LARGEST_HEAD)
        .max_buf_size(LARGEST_HEAD);
    let connection = builder.serve_connection(TokioIo::new(StallTimeout::new(stream)), service);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        // An error is a client that closed the connection, or was too slow. Nothing follows from it.
        _ = connection.as_mut() => return,
        () = wait.closed() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    while tokio::time::timeout(CLOSES_WITHIN, connection.as_mut()).await.is_err() {
        // No request is in flight.
        if wait.is_waiting() {
            return;
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
