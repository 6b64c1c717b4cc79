//! The same invites over HTTP: a client of the gateway's that costs little of the CPU that it shares with it. Its
//! connections are kept, and each has one request in hand at a time.

use crate::{
    answer::{self, Answer},
    load::GROUP,
    outcome::Outcome,
    part::WINDOW,
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

/// How long any answer is waited for: longer than the gateway waits for a worker's reply.
const PATIENCE: Duration = Duration::from_secs(40);
/// A connection that was not used for longer is not used again: the gateway closes it after ten seconds.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// How long the gateway may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// For an answer, mostly.
const BUFFER: usize = 2_048;

/// An upstream system that speaks HTTP.
#[derive(Debug)]
pub struct Client {
    gateway: SocketAddr,
    authorization: String,
    /// Connections without a request in hand, the last used last.
    idle: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    stream: TcpStream,
    read: Vec<u8>,
    used: Instant,
}

/// A request's end: when it came, and the connection if it is of use.
struct Done {
    place: u32,
    at: Instant,
    line: Option<Line>,
    answered: Result<Verdict, String>,
}

enum Verdict {
    Sent,
    /// 200, and something else inside.
    Other(String),
    /// 200, and another invite's reply.
    Stray,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    status: &'a str,
    sms_phone: &'a str,
}

impl Client {
    /// Waits until the gateway is ready.
    pub async fn connect(gateway: SocketAddr, api_key: &str) -> Result<Self, String> {
        let authorization = credentials::gkey(GROUP, "12345", api_key);
        let begun = Instant::now();
        while !is_ready(gateway).await {
            if begun.elapsed() > READY_WITHIN {
                return Err(format!("the gateway is not ready after {READY_WITHIN:?}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { gateway, authorization, idle: Vec::new() })
    }

    /// Asks for so many invites, and waits for their answers, as long as there are any. No more than `WINDOW` are in
    /// hand; one that is due and has to wait for another's end has that time in its latency.
    pub async fn load(&mut self, invites: u32, rate: Option<u32>) -> Outcome {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let begun = Instant::now();
        let mut due: Vec<Duration> = match rate {
            Some(rate) => (0..invites).map(|at| Duration::from_secs(1) * at / rate).collect(),
            None => Vec::new(),
        };
        let mut outcome = Outcome { asked: invites, ..Outcome::default() };
        let (mut next, mut in_hand) = (0, FuturesUnordered::new());
        while outcome.settled() + outcome.strays < invites {
            while next < invites && in_hand.len() < WINDOW {
                let now = begun.elapsed();
                if rate.is_none() {
                    due.push(now);
                } else if due[place(next)] > now {
                    break;
                }
                let line = self.idle.pop().filter(|line| line.used.elapsed() < FRESH_FOR);
                in_hand.push(exchange(self.gateway, line, next, self.request(&name, next)));
                next += 1;
            }
            let wake = match due.get(place(next)) {
                Some(due) if in_hand.len() < WINDOW => begun + *due,
                _ => Instant::now() + PATIENCE,
            };
            tokio::select! {
                biased;
                Some(done) = in_hand.next(), if !in_hand.is_empty() => {
                    let at = done.at - begun;
                    self.idle.extend(done.line);
                    let since = due[place(done.place)];
                    match done.answered {
                        Ok(Verdict::Stray) => outcome.strays += 1,
                        Err(failure) => *outcome.failures.entry(failure).or_default() += 1,
                        Ok(verdict) => {
                            outcome.answered += 1;
                            outcome.took = outcome.took.max(at);
                            outcome.latencies.push(at.saturating_sub(since));
                            if let Verdict::Other(said) = verdict {
                                *outcome.others.entry(said).or_default() += 1;
                            }
                        }
                    }
                }
                () = sleep_until(wake.into()) => {
                    if next == invites || in_hand.len() == WINDOW {
                        break;
                    }
                }
            }
        }
        outcome.latencies.sort_unstable();
        outcome
    }

    /// As the contract shows it, with an id.
    fn request(&self, name: &str, place: u32) -> String {
        let Self { gateway, authorization, .. } = self;
        let body = format!(
            r#"{{"sessiontype": 1, "smsPhone": "{}", "sessionParams": {{"camera": "back", "resolution": "352x288"}}}}"#,
            phone(place)
        );
        format!(
            "POST /api/SessionInvitation/smsInvite/?groupid={GROUP} HTTP/1.1\r\nHost: {gateway}\r\n\
             Accept: application/json\r\nAuthorization: {authorization}\r\nContent-Type: application/json\r\n\
             Idempotency-Key: {name}-{place}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

fn place(number: u32) -> usize {
    usize::try_from(number).expect("so many were asked for")
}

fn phone(place: u32) -> String {
    format!("+1415{}", 2_000_000 + place % 8_000_000)
}

async fn exchange(gateway: SocketAddr, line: Option<Line>, place: u32, request: String) -> Done {
    let mut line = match line {
        Some(line) => line,
        None => match Line::open(gateway).await {
            Ok(line) => line,
            Err(error) => {
                let answered = Err(format!("no connection: {error}"));
                return Done { place, at: Instant::now(), line: None, answered };
            }
        },
    };
    let answer = line.ask(&request).await;
    let at = Instant::now();
    let keeps = matches!(&answer, Ok(answer) if answer.keeps);
    let answered = answer.and_then(|answer| verdict(&answer, place));
    line.used = at;
    Done { place, at, line: keeps.then_some(line), answered }
}

fn verdict(answer: &Answer<'_>, place: u32) -> Result<Verdict, String> {
    if answer.status != 200 {
        let problem: serde_json::Value = serde_json::from_slice(answer.body).unwrap_or_default();
        return Err(format!("{} {}", answer.status, problem["code"].as_str().unwrap_or("without a code")));
    }
    Ok(match serde_json::from_slice(answer.body) {
        Ok(Reply { sms_phone, .. }) if sms_phone != phone(place) => Verdict::Stray,
        Ok(Reply { status: "sent", .. }) => Verdict::Sent,
        _ => Verdict::Other(String::from_utf8_lossy(answer.body).into_owned()),
    })
}

impl Line {
    async fn open(gateway: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(BUFFER), used: Instant::now() })
    }

    /// One request, and its whole answer.
    async fn ask(&mut self, request: &str) -> Result<Answer<'_>, String> {
        let broken = |error: std::io::Error| format!("no answer: {error}");
        self.stream.write_all(request.as_bytes()).await.map_err(broken)?;
        self.read.clear();
        loop {
            if self.stream.read_buf(&mut self.read).await.map_err(broken)? == 0 {
                return Err("no answer: the gateway hung up".to_owned());
            }
            if answer::parse(&self.read)?.is_some() {
                break;
            }
        }
        // Once more, as nothing borrows from what is still being read.
        answer::parse(&self.read)?.ok_or_else(|| "no answer".to_owned())
    }
}

async fn is_ready(gateway: SocketAddr) -> bool {
    let Ok(mut line) = Line::open(gateway).await else { return false };
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {gateway}\r\n\r\n");
    line.ask(&request).await.is_ok_and(|answer| answer.status == 200)
}
