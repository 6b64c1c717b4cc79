//! Connections to the provider: HTTP/1.1, kept open for the next request. The task of the request drives its connection
//! itself, so no other task and no channel is between an invite and its socket. No request is made twice.

use super::write_guard::GuardedBody;
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
use rustix::io::Errno;
use std::{
    collections::VecDeque,
    error::Error,
    future::poll_fn,
    io,
    iter::successors,
    pin::{Pin, pin},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, task::yield_now};
use tower_service::Service;
use url::Url;

/// Shorter than servers keep idle connections: a request on one that is being closed would end as unknown.
const IDLE_AT_MOST: Duration = Duration::from_secs(15);
/// How long connecting may take, if the whole request may take longer.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);

/// Why a request has no answer. The texts hold nothing of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    #[error("the provider cannot be connected to: {why}")]
    NotConnected {
        why: String,
        /// This process may open no more files.
        no_files: bool,
    },
    #[error("the provider did not answer in time")]
    TooSlow,
    #[error("the connection to the provider was cut")]
    Cut,
    #[error("the provider's answer is too large")]
    TooLarge,
}

impl RequestError {
    /// With the innermost cause: the outer ones say only that connecting failed.
    fn not_connected(error: &(dyn Error + 'static)) -> Self {
        tracing::debug!(%error, "the provider cannot be connected to");
        let chain = || successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
        let io_error = chain().filter_map(|error| error.downcast_ref::<io::Error>()).last();
        let code = io_error.and_then(io::Error::raw_os_error);
        let no_files = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error())).contains(&code);
        let why = chain().last().map(ToString::to_string).unwrap_or_default();
        Self::NotConnected { why, no_files }
    }
}

/// The connections to one origin.
#[derive(Debug)]
pub(super) struct ProviderConnections {
    connector: HttpsConnector<HttpConnector>,
    origin: hyper::Uri,
    host: HeaderValue,
    /// For a whole request: connecting, sending, and reading the answer.
    timeout: Duration,
    /// Those without a request, with the time of their last use; the newest is at the back.
    idle: Mutex<VecDeque<(Instant, ProviderConnection)>>,
}

impl ProviderConnections {
    /// `origin` is any URL there.
    ///
    /// # Errors
    ///
    /// If it is no HTTP URL, or the TLS roots cannot be read.
    pub(super) fn new(origin: &Url, timeout: Duration) -> io::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout.min(CONNECTS_WITHIN)));
        // The kernel must not deliver a request later than that, not even for a process that is stopped.
        tcp.set_tcp_user_timeout(Some(timeout));
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

    /// Makes the request, once. Its URI is a path, and its answer's body may have `limit` bytes.
    pub(super) async fn request(
        &self,
        mut request: Request<GuardedBody>,
        limit: usize,
    ) -> Result<(Parts, Vec<u8>), RequestError> {
        request.headers_mut().insert(HOST, self.host.clone());
        let exchange = async {
            // Lets the runtime notice connections that were closed meanwhile.
            yield_now().await;
            let mut connection = match self.take_idle() {
                Some(connection) => connection,
                None => self.open().await?,
            };
            let answer = connection.request(request, limit).await?;
            self.keep(connection);
            Ok(answer)
        };
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(RequestError::TooSlow))
    }

    /// The idle connection that was used last, among those that the provider has not closed.
    fn take_idle(&self) -> Option<ProviderConnection> {
        loop {
            let (_, mut connection) = self.idle().pop_back()?;
            if connection.is_open() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: ProviderConnection) {
        if connection.driver.is_some() {
            self.idle().push_back((Instant::now(), connection));
        }
    }

    /// The idle connections, after those that were unused for too long are dropped.
    fn idle(&self) -> MutexGuard<'_, VecDeque<(Instant, ProviderConnection)>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while idle.front().is_some_and(|(since, _)| since.elapsed() > IDLE_AT_MOST) {
            idle.pop_front();
        }
        idle
    }

    async fn open(&self) -> Result<ProviderConnection, RequestError> {
        let stream = self.connector.clone().call(self.origin.clone()).await;
        let stream = stream.map_err(|error| RequestError::not_connected(error.as_ref()))?;
        // When it is closed, what the provider has not received yet is discarded: after a cut, the kernel would deliver it
        // minutes after the try has ended.
        tcp_of(&stream).set_zero_linger().map_err(|error| RequestError::not_connected(&error))?;
        let handshake = Builder::new().handshake(stream).await;
        let (sender, driver) = handshake.map_err(|error| RequestError::not_connected(&error))?;
        Ok(ProviderConnection { sender, driver: Some(Box::pin(driver)) })
    }
}

type ProviderStream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Driver = Connection<ProviderStream, GuardedBody>;

fn tcp_of(stream: &ProviderStream) -> &TcpStream {
    match stream {
        MaybeHttpsStream::Http(plain) => plain.inner(),
        MaybeHttpsStream::Https(tls) => tls.inner().get_ref().0.inner().inner(),
    }
}

/// One connection. It reads and writes only while it is polled.
struct ProviderConnection {
    sender: SendRequest<GuardedBody>,
    /// `None` once the connection is closed; a request then fails at once.
    driver: Option<Pin<Box<Driver>>>,
}

impl std::fmt::Debug for ProviderConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderConnection").field("open", &self.driver.is_some()).finish_non_exhaustive()
    }
}

impl ProviderConnection {
    /// Whether it takes a request, as far as the runtime has noticed.
    fn is_open(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
            self.driver = None;
        }
    }

    async fn request(
        &mut self,
        request: Request<GuardedBody>,
        limit: usize,
    ) -> Result<(Parts, Vec<u8>), RequestError> {
        let mut exchange = pin!(read_whole(self.sender.send_request(request), limit));
        poll_fn(|cx| {
            // The answer's head and body mostly arrive together, and are read one after the other.
            for _ in 0..2 {
                if let Poll::Ready(answer) = exchange.as_mut().poll(cx) {
                    return Poll::Ready(answer);
                }
                self.drive(cx);
            }
            exchange.as_mut().poll(cx)
        })
        .await
    }
}

async fn read_whole(
    response: impl Future<Output = hyper::Result<Response<Incoming>>>,
    limit: usize,
) -> Result<(Parts, Vec<u8>), RequestError> {
    let (head, mut body) = response.await.map_err(|_| RequestError::Cut)?.into_parts();
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|_| RequestError::Cut)?.into_data() {
            if whole.len() + data.len() > limit {
                return Err(RequestError::TooLarge);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok((head, whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sms::write_guard::WriteGuard;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    fn get() -> Request<GuardedBody> {
        let mut request = Request::new(WriteGuard::until(Instant::now()).no_body());
        *request.uri_mut() = "/".parse().unwrap();
        request
    }

    #[tokio::test]
    async fn a_connection_that_is_given_up_is_reset_so_that_nothing_arrives_later() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let origin = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let provider = ProviderConnections::new(&origin, Duration::from_secs(8)).unwrap();
        let (server, answers) = tokio::join!(
            async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                // The second request gets no answer.
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.read(&mut request).await
            },
            async {
                [provider.request(get(), 1024).await.is_ok(), provider.request(get(), 1024).await.is_ok()]
            }
        );
        assert_eq!(answers, [true, false]);
        assert_eq!(server.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
