//! A gateway process, and HTTP clients of it: one that behaves, and one that writes bytes.

use super::{DEADLINE, World, until, worker::Worker};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// The path of the contract's section 1.
pub const SMS_INVITE: &str = "/api/SessionInvitation/smsInvite/?groupid=72";

/// Stopped by whoever started it, or killed when it is dropped.
pub struct Gateway {
    pub process: Worker,
    http: Http,
}

/// Clients of whatever listens there.
pub struct Http {
    /// Such as `127.0.0.1:49152`.
    pub address: String,
    client: reqwest::Client,
}

impl std::ops::Deref for Gateway {
    type Target = Http;
    fn deref(&self) -> &Http {
        &self.http
    }
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header is text"))
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        self.json()
    }

    /// The problem of a refusal with this status and code.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(!detail.is_empty(), "{problem}");
        for of_amqp in ["message_id", "content_type", "content_encoding", "AMQP"] {
            assert!(!detail.contains(of_amqp), "an HTTP client knows no {of_amqp}: {problem}");
        }
        assert_eq!(problem["requestId"].as_str(), self.header("x-request-id"), "{problem}");
        assert_eq!(self.header("www-authenticate"), (status == 401).then_some("Bearer"), "{self:?}");
        if matches!(status, 429 | 503) {
            assert!(self.header("retry-after").is_some(), "{self:?}");
        }
        problem
    }
}

impl World {
    /// A gateway in the world's environment with changes, ready.
    pub async fn start_gateway(&self, changes: &[(&str, &str)]) -> Gateway {
        let mut gateway = self.spawn_gateway(changes).await;
        gateway.process.ready().await;
        gateway
    }

    /// The same, perhaps not ready yet.
    pub async fn spawn_gateway(&self, changes: &[(&str, &str)]) -> Gateway {
        let all: Vec<_> = [("GATEWAY_ADDR", "127.0.0.1:0")].iter().chain(changes).copied().collect();
        Gateway::of(Worker::spawn_as("gateway", &self.environment(&all), &self.log)).await
    }

    /// One that may have so many open files, ready.
    pub async fn start_gateway_with_files(&self, files: u32) -> Gateway {
        let environment = self.environment(&[("GATEWAY_ADDR", "127.0.0.1:0")]);
        let process = Worker::spawn_with_files("gateway", files, &environment, &self.log);
        let mut gateway = Gateway::of(process).await;
        gateway.process.ready().await;
        gateway
    }
}

impl Gateway {
    async fn of(process: Worker) -> Self {
        let http = Http::at(&process.address().await);
        Self { process, http }
    }

    /// The answer to a `GET` on HTTP_ADDR.
    pub async fn operators(&self, path: &str) -> Answer {
        let address = self.operators_address().await;
        send(Http::at(&address).request("GET", path)).await
    }

    /// Where it answers operators.
    pub async fn operators_address(&self) -> String {
        let said = "answering /healthz, /readyz and /metrics";
        until("the gateway answers operators", || async {
            let log = self.process.log();
            let line = log.lines().find(|line| line.contains(said))?;
            Some(line.split_once("addr=")?.1.trim().to_owned())
        })
        .await
    }
}

impl Http {
    pub fn at(address: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE * 4).build();
        Self { address: address.to_owned(), client: client.expect("an HTTP client") }
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// The documented request, of the world's group.
    pub fn invite(&self, world: &World) -> reqwest::RequestBuilder {
        self.invite_with(world, &invite())
    }

    /// The same with another body.
    pub fn invite_with(&self, world: &World, body: &Value) -> reqwest::RequestBuilder {
        self.request("POST", SMS_INVITE)
            .header("Authorization", world.credential())
            .header("Content-Type", "application/json")
            .body(body.to_string())
    }

    /// Writes these bytes, and reads what comes until the gateway closes the connection.
    pub fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes.as_ref()).expect("the gateway reads");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).expect("UTF-8 is answered")
    }

    /// A connection on which nothing was said yet.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("the gateway listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out can be set");
        stream
    }
}

/// The body of the contract's section 1.
pub fn invite() -> Value {
    serde_json::json!({
        "sessiontype": 1,
        "smsPhone": "111-000-0000",
        "sessionParams": {"camera": "back", "resolution": "352x288"},
    })
}

/// Sends a request, and reads its answer.
pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    try_send(request).await.unwrap_or_else(|error| panic!("the gateway answers: {error:?}"))
}

/// The same of a gateway that may be gone.
pub async fn try_send(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.text().await? })
}
