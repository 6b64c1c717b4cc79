//! A gateway process, and HTTP clients of it: one that behaves, and one that writes bytes.

use super::{DEADLINE, World, message::SentReply, until, worker::Worker};
use serde::Deserialize;
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// The path of the contract's section 1.
pub const SMS_INVITE: &str = "/api/SessionInvitation/smsInvite/?groupid=72";

/// A test stops it; one that is not stopped is killed when it is dropped.
pub struct Gateway {
    pub process: Worker,
    http: Http,
}

/// HTTP clients of one address.
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

/// An HTTP answer.
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

    /// The body of a sent invite.
    #[track_caller]
    pub fn sent(&self) -> SentReply {
        SentReply::read(&self.ok())
    }

    /// The problem of a refusal with this status and code.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Problem {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: Problem =
            serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!((problem.code.as_str(), problem.status), (code, status), "{problem:?}");
        assert_eq!(problem.kind, "about:blank", "{problem:?}");
        assert!(!problem.title.is_empty() && !problem.detail.is_empty(), "{problem:?}");
        for of_amqp in ["message_id", "content_type", "content_encoding", "AMQP"] {
            assert!(!problem.detail.contains(of_amqp), "an HTTP client does not know {of_amqp}: {problem:?}");
        }
        assert_eq!(Some(problem.request_id.as_str()), self.header("x-request-id"), "{problem:?}");
        assert_eq!(self.header("www-authenticate"), (status == 401).then_some("Bearer"), "{self:?}");
        if matches!(status, 429 | 503) {
            assert!(self.header("retry-after").is_some(), "{self:?}");
        }
        problem
    }
}

/// The body of a refusal (RFC 9457, and the contract's section 13).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: String,
    /// Empty when no field is at fault.
    #[serde(default)]
    pub field: String,
    pub retryable: Option<bool>,
    pub provider_code: Option<i64>,
    pub retry_after_seconds: Option<u64>,
    pub request_id: String,
}

impl World {
    /// A gateway in the world's environment with changes, ready.
    pub async fn start_gateway(&self, changes: &[(&str, &str)]) -> Gateway {
        let mut gateway = self.spawn_gateway(changes).await;
        gateway.process.ready().await;
        gateway
    }

    /// The same, without waiting until it is ready.
    pub async fn spawn_gateway(&self, changes: &[(&str, &str)]) -> Gateway {
        let all: Vec<_> = [("GATEWAY_ADDR", "127.0.0.1:0")].iter().chain(changes).copied().collect();
        Gateway::of(Worker::spawn_as("gateway", &self.environment(&all), &self.log)).await
    }

    /// A gateway that may open so many files, ready.
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

    /// Its HTTP_ADDR.
    pub async fn operators_address(&self) -> String {
        let listening = "answering /healthz, /readyz and /metrics";
        until("the gateway answers operators", || async {
            let log = self.process.log();
            let line = log.lines().find(|line| line.contains(listening))?;
            Some(line.split_once("addr=")?.1.trim().to_owned())
        })
        .await
    }
}

impl Http {
    pub fn at(address: &str) -> Self {
        let none = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder().no_proxy().redirect(none).timeout(DEADLINE * 4).build();
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

    /// A connection on which nothing was sent yet.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("the gateway listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out can be set");
        stream
    }
}

impl Gateway {
    /// An agent's look-up of a session, with the world's credential.
    pub fn look_up(&self, world: &World, key: &str) -> reqwest::RequestBuilder {
        let path = format!("/api/SessionInvitation/session/?groupid=72&sessionKey={key}");
        self.request("GET", &path).header("Authorization", world.credential())
    }

    /// An agent's request to `join` or `end` a session, with this body.
    pub fn act(&self, world: &World, verb: &str, body: impl Into<String>) -> reqwest::RequestBuilder {
        let path = format!("/api/SessionInvitation/session/{verb}/?groupid=72");
        let request = self.request("POST", &path).header("Authorization", world.credential());
        request.header("Content-Type", "application/json").body(body.into())
    }

    pub fn join(&self, world: &World, key: &str) -> reqwest::RequestBuilder {
        self.act(world, "join", by_key(key))
    }

    pub fn end(&self, world: &World, key: &str) -> reqwest::RequestBuilder {
        self.act(world, "end", by_key(key))
    }

    /// Sends the documented invite; returns its session's key.
    pub async fn invited(&self, world: &World) -> String {
        send(self.invite(world)).await.sent().session_key
    }
}

/// The body of an agent's request.
fn by_key(key: &str) -> String {
    serde_json::json!({ "sessionKey": key }).to_string()
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

/// The same for a gateway that may have ended.
pub async fn try_send(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.text().await? })
}
