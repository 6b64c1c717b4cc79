//! Connections: HTTP/1.1 and 1.0, a bounded number of them, each with little time to say what it wants.

use super::{
    arrivals::{Arrival, Arrivals},
    stall::Stalling,
};
use crate::supervise::aside_in;
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

/// A request's head has to come whole within this, and the next one on a connection that is kept.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request's head; above that, and above the HTTP library's 100 headers, the answer is 431.
const LARGEST_HEAD: usize = 32 * 1024;
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

/// Takes connections of `listener`, `most` at a time, until `stop`. Afterwards requests in hand are answered, and the
/// connections close. For one more, the connection that has waited longest for its client is closed.
///
/// `answering` gets the address of a request's sender, and says by the `Arrival` when the request is there whole.
pub async fn serve<A, F>(
    listener: Arc<TcpListener>,
    most: usize,
    connections: Connections,
    answering: A,
    stop: CancellationToken,
) where
    A: Fn(IpAddr, Arc<Arrival>, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most));
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
                let (answering, stop) = (answering.clone(), stop.clone());
                let arrival = arrivals.arrive();
                aside_in(&connections.0, "a connection by HTTP", async move {
                    let _place = place;
                    converse(answering, stream, peer, arrival, stop).await;
                });
            }
            // A client that hung up before it was accepted costs no other client anything.
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
async fn converse<A, F>(
    answering: A,
    stream: TcpStream,
    peer: SocketAddr,
    arrival: Arrival,
    stop: CancellationToken,
) where
    A: Fn(IpAddr, Arc<Arrival>, Request<Incoming>) -> F + Clone,
    F: Future<Output = Response> + Send + 'static,
{
    // Answers are small and whole: there is nothing to wait for.
    let _ = stream.set_nodelay(true);
    let arrival = Arc::new(arrival);
    let arriving = arrival.clone();
    let peer = peer.ip();
    // Boxed, so that a connection without a request has no room for one about.
    let service = service_fn(move |request| -> BoxFuture<'static, Result<_, Infallible>> {
        let (answer, arriving) = (answering(peer, arriving.clone(), request), arriving.clone());
        Box::pin(async move {
            let response = answer.await;
            // For the client to read the answer, and to ask again.
            arriving.begin();
            Ok(response)
        })
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

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
