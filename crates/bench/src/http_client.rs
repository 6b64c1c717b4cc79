//! Sends the same invites over HTTP. The client shares the CPU with the gateway, so it does little. It keeps its
//! connections, each with one request at a time.

use crate::{
    load_result::LoadResult,
    queue_client::GROUP,
    response::{self, HttpResponse},
    scenario::MAX_UNANSWERED,
};
use futures::{StreamExt, stream::FuturesUnordered};
use serde::Deserialize;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use test_support::credentials;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep_until,
};

/// How long to wait for the next response. Longer than the gateway waits for a worker's reply.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(40);
/// A connection that was idle for longer is not used again: the gateway closes it after ten seconds.
const MAX_IDLE: Duration = Duration::from_secs(5);
/// How long the gateway may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// The initial capacity of a buffer. Most responses fit.
const BUFFER_SIZE: usize = 2_048;

/// An upstream system that uses HTTP.
#[derive(Debug)]
pub(crate) struct HttpClient {
    gateway: SocketAddr,
    authorization: String,
    /// Connections without a request, the most recently used one last.
    idle: Vec<HttpConnection>,
}

#[derive(Debug)]
struct HttpConnection {
    stream: TcpStream,
    received: Vec<u8>,
    last_used: Instant,
}

/// The end of a request, and its connection if that can be used again.
struct Exchange {
    index: u32,
    end: Instant,
    connection: Option<HttpConnection>,
    result: Result<ReplyCheck, String>,
}

enum ReplyCheck {
    Sent,
    /// 200, with a reply that is not `sent`.
    Other(String),
    /// 200, with the reply to another invite.
    Stray,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpReply<'a> {
    status: &'a str,
    sms_phone: &'a str,
}

impl HttpClient {
    /// Waits until the gateway is ready.
    pub(crate) async fn connect(gateway: SocketAddr, api_key: &str) -> Result<Self, String> {
        let authorization = credentials::gkey(GROUP, "12345", api_key);
        let start = Instant::now();
        while !is_ready(gateway).await {
            if start.elapsed() > READY_TIMEOUT {
                return Err(format!("the gateway is not ready after {READY_TIMEOUT:?}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { gateway, authorization, idle: Vec::new() })
    }

    /// Sends invites, and waits for their responses until none comes within [`RESPONSE_TIMEOUT`]. At most
    /// [`MAX_UNANSWERED`] are in flight. The latency of an invite counts from when it is due, so it includes the wait for
    /// another invite's end.
    pub(crate) async fn load(&mut self, invites: u32, rate: Option<u32>) -> LoadResult {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let start = Instant::now();
        let mut due: Vec<Duration> = match rate {
            Some(rate) => (0..invites).map(|index| Duration::from_secs(1) * index / rate).collect(),
            None => Vec::new(),
        };
        let mut result = LoadResult { requested: invites, ..LoadResult::default() };
        let (mut next, mut in_flight) = (0, FuturesUnordered::new());
        while result.settled() + result.strays < invites {
            while next < invites && in_flight.len() < MAX_UNANSWERED {
                let now = start.elapsed();
                if rate.is_none() {
                    due.push(now);
                } else if due[as_usize(next)] > now {
                    break;
                }
                let connection = self.idle.pop().filter(|idle| idle.last_used.elapsed() < MAX_IDLE);
                in_flight.push(exchange(self.gateway, connection, next, self.request(&name, next)));
                next += 1;
            }
            let wake = match due.get(as_usize(next)) {
                Some(due) if in_flight.len() < MAX_UNANSWERED => start + *due,
                _ => Instant::now() + RESPONSE_TIMEOUT,
            };
            tokio::select! {
                biased;
                Some(exchange) = in_flight.next(), if !in_flight.is_empty() => {
                    let end = exchange.end - start;
                    self.idle.extend(exchange.connection);
                    match exchange.result {
                        Ok(ReplyCheck::Stray) => result.strays += 1,
                        Err(failure) => *result.failures.entry(failure).or_default() += 1,
                        Ok(check) => {
                            result.answered += 1;
                            result.duration = result.duration.max(end);
                            result.latencies.push(end.saturating_sub(due[as_usize(exchange.index)]));
                            if let ReplyCheck::Other(reply) = check {
                                *result.other_replies.entry(reply).or_default() += 1;
                            }
                        }
                    }
                }
                () = sleep_until(wake.into()) => {
                    if next == invites || in_flight.len() == MAX_UNANSWERED {
                        break;
                    }
                }
            }
        }
        result.latencies.sort_unstable();
        result
    }

    /// The contract's example of a request, with an id.
    fn request(&self, name: &str, index: u32) -> String {
        let Self { gateway, authorization, .. } = self;
        let body = format!(
            r#"{{"sessiontype": 1, "smsPhone": "{}", "sessionParams": {{"camera": "back", "resolution": "352x288"}}}}"#,
            phone(index)
        );
        format!(
            "POST /api/SessionInvitation/smsInvite/?groupid={GROUP} HTTP/1.1\r\nHost: {gateway}\r\n\
             Accept: application/json\r\nAuthorization: {authorization}\r\nContent-Type: application/json\r\n\
             Idempotency-Key: {name}-{index}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

fn as_usize(index: u32) -> usize {
    usize::try_from(index).expect("a usize has 32 bits or more")
}

fn phone(index: u32) -> String {
    format!("+1415{}", 2_000_000 + index % 8_000_000)
}

async fn exchange(
    gateway: SocketAddr,
    connection: Option<HttpConnection>,
    index: u32,
    request: String,
) -> Exchange {
    let mut connection = match connection {
        Some(connection) => connection,
        None => match HttpConnection::open(gateway).await {
            Ok(connection) => connection,
            Err(error) => {
                let result = Err(format!("no connection: {error}"));
                return Exchange { index, end: Instant::now(), connection: None, result };
            }
        },
    };
    let response = connection.send(&request).await;
    let end = Instant::now();
    let keeps_alive = matches!(&response, Ok(response) if response.keeps_alive);
    let result = response.and_then(|response| check(&response, index));
    connection.last_used = end;
    Exchange { index, end, connection: keeps_alive.then_some(connection), result }
}

fn check(response: &HttpResponse<'_>, index: u32) -> Result<ReplyCheck, String> {
    if response.status != 200 {
        let problem: serde_json::Value = serde_json::from_slice(response.body).unwrap_or_default();
        return Err(format!("{} {}", response.status, problem["code"].as_str().unwrap_or("without a code")));
    }
    Ok(match serde_json::from_slice(response.body) {
        Ok(HttpReply { sms_phone, .. }) if sms_phone != phone(index) => ReplyCheck::Stray,
        Ok(HttpReply { status: "sent", .. }) => ReplyCheck::Sent,
        _ => ReplyCheck::Other(String::from_utf8_lossy(response.body).into_owned()),
    })
}

impl HttpConnection {
    async fn open(gateway: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(BUFFER_SIZE), last_used: Instant::now() })
    }

    /// Sends one request, and reads its whole response.
    async fn send(&mut self, request: &str) -> Result<HttpResponse<'_>, String> {
        let broken = |error: std::io::Error| format!("no answer: {error}");
        self.stream.write_all(request.as_bytes()).await.map_err(broken)?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await.map_err(broken)? == 0 {
                return Err("no answer: the gateway closed the connection".to_owned());
            }
            if response::parse(&self.received)?.is_some() {
                break;
            }
        }
        // Parsed a second time: the borrow checker does not accept the loop's value here.
        response::parse(&self.received)?.ok_or_else(|| "no answer".to_owned())
    }
}

async fn is_ready(gateway: SocketAddr) -> bool {
    let Ok(mut connection) = HttpConnection::open(gateway).await else { return false };
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {gateway}\r\n\r\n");
    connection.send(&request).await.is_ok_and(|response| response.status == 200)
}
