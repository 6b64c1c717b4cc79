//! Lines to the provider: HTTP/1.1, kept warm, each driven by the one who uses it. There is no task and no channel between
//! an invite and its socket, and nothing in here asks twice.

use super::written::Guarded;
use http_body_util::BodyExt;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{Builder, Connection, SendRequest},
    header::{HOST, HeaderValue},
    http::response::Parts,
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, task::yield_now};
use tower_service::Service;
use url::Url;

/// Shorter than servers keep idle connections: a request on a closing one would end as unknown.
const IDLE_AT_MOST: Duration = Duration::from_secs(15);
/// How long a connection may take, if the whole request may take longer.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);

/// Why a request has no answer, in words that hold nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failed {
    #[error("the provider cannot be connected to")]
    NoLine,
    #[error("the provider did not answer in time")]
    TooSlow,
    #[error("the line to the provider was cut")]
    Cut,
    #[error("the provider answered at too great a length")]
    TooLong,
}

/// Lines to one origin.
#[derive(Debug)]
pub(super) struct Lines {
    connector: HttpsConnector<HttpConnector>,
    origin: hyper::Uri,
    host: HeaderValue,
    /// For a whole request: connecting, asking, and reading the answer.
    timeout: Duration,
    /// The one that was used last is the last.
    idle: Mutex<VecDeque<(Instant, Line)>>,
}

impl Lines {
    /// `origin` is any URL there. Fails if it is not one of HTTP, or if the TLS roots cannot be read.
    pub fn new(origin: &Url, timeout: Duration) -> io::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout.min(CONNECTS_WITHIN)));
        let connector = HttpsConnectorBuilder::new().with_native_roots()?.https_or_http().enable_http1();
        let authority = &origin[url::Position::BeforeHost..url::Position::AfterPort];
        Ok(Self {
            connector: connector.wrap_connector(tcp),
            origin: origin[..url::Position::AfterPort].parse().map_err(io::Error::other)?,
            host: HeaderValue::from_str(authority).map_err(io::Error::other)?,
            timeout,
            idle: Mutex::default(),
        })
    }

    /// Asks once; an answer of more than `limit` bytes is none. The request's URI is a path.
    pub async fn ask(&self, mut request: Request<Guarded>, limit: usize) -> Result<(Parts, Vec<u8>), Failed> {
        request.headers_mut().insert(HOST, self.host.clone());
        let asking = async {
            // Lets the runtime hear of lines that were closed meanwhile.
            yield_now().await;
            let mut line = match self.warm() {
                Some(line) => line,
                None => self.open().await?,
            };
            let answer = line.ask(request, limit).await?;
            self.keep(line);
            Ok(answer)
        };
        tokio::time::timeout(self.timeout, asking).await.unwrap_or(Err(Failed::TooSlow))
    }

    /// The line that was used last, if the provider has not closed it since.
    fn warm(&self) -> Option<Line> {
        loop {
            let (_, mut line) = self.idle().pop_back()?;
            if line.is_open() {
                return Some(line);
            }
        }
    }

    fn keep(&self, line: Line) {
        if line.connection.is_some() {
            self.idle().push_back((Instant::now(), line));
        }
    }

    /// Those that are not too old.
    fn idle(&self) -> MutexGuard<'_, VecDeque<(Instant, Line)>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while idle.front().is_some_and(|(since, _)| since.elapsed() > IDLE_AT_MOST) {
            idle.pop_front();
        }
        idle
    }

    async fn open(&self) -> Result<Line, Failed> {
        let unreached = |what: &dyn std::fmt::Display| {
            tracing::debug!(error = %what, "the provider is not reached");
            Failed::NoLine
        };
        let stream = self.connector.clone().call(self.origin.clone()).await;
        let stream = stream.map_err(|error| unreached(&error))?;
        let (sender, connection) =
            Builder::new().handshake(stream).await.map_err(|error| unreached(&error))?;
        Ok(Line { sender, connection: Some(Box::pin(connection)) })
    }
}

type Driver = Connection<MaybeHttpsStream<TokioIo<TcpStream>>, Guarded>;

/// One line. Nothing moves on it but while it is polled.
struct Line {
    sender: SendRequest<Guarded>,
    /// Gone when it is over: what is asked of it then fails at once.
    connection: Option<Pin<Box<Driver>>>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("open", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl Line {
    /// Whether it takes a request, as far as is known here.
    fn is_open(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            self.connection = None;
        }
    }

    async fn ask(&mut self, request: Request<Guarded>, limit: usize) -> Result<(Parts, Vec<u8>), Failed> {
        let mut asking = pin!(read_whole(self.sender.send_request(request), limit));
        poll_fn(|cx| {
            // The answer's head and its body mostly come together, and are taken one after the other.
            for _ in 0..2 {
                if let Poll::Ready(answer) = asking.as_mut().poll(cx) {
                    return Poll::Ready(answer);
                }
                self.drive(cx);
            }
            asking.as_mut().poll(cx)
        })
        .await
    }
}

async fn read_whole(
    asking: impl Future<Output = hyper::Result<Response<Incoming>>>,
    limit: usize,
) -> Result<(Parts, Vec<u8>), Failed> {
    let (head, mut body) = asking.await.map_err(|_| Failed::Cut)?.into_parts();
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|_| Failed::Cut)?.into_data() {
            if whole.len() + data.len() > limit {
                return Err(Failed::TooLong);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok((head, whole))
}
