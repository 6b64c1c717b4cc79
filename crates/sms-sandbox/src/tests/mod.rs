//! The sandbox through its front door: real HTTP on a port of its own.

mod faults;
mod listing;
mod messages;
mod surroundings;

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Settings, serve};

const MESSAGES: &str = "/2010-04-01/Accounts/AC1/Messages.json";
const DEADLINE: Duration = Duration::from_secs(30);

struct TestSandbox {
    base: String,
    client: Client,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
    _guard: DropGuard,
}

impl TestSandbox {
    async fn start(settings: Settings) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, settings, stop.clone().cancelled_owned()));
        let client =
            Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        Self { base, client, stop: stop.clone(), served, _guard: stop.drop_guard() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).basic_auth("AC1", Some("token"))
    }

    fn create(&self, form: &[(&str, &str)]) -> RequestBuilder {
        self.request(Method::POST, MESSAGES).form(form)
    }

    fn text(&self, to: &str, body: &str) -> RequestBuilder {
        self.create(&[("To", to), ("From", "+15005550006"), ("Body", body)])
    }

    async fn accept(&self, to: &str, body: &str) -> Value {
        let (status, message) = answer(self.text(to, body)).await;
        assert_eq!(status, 201, "{message}");
        message
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = answer(self.request(Method::GET, path)).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn put_faults(&self, changes: Value) -> (u16, Value) {
        let body = serde_json::to_vec(&changes).unwrap();
        let request = self.request(Method::PUT, "/sandbox/faults");
        answer(request.header("Content-Type", "application/json").body(body)).await
    }
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
}

fn bodies(messages: &Value) -> Vec<&str> {
    messages.as_array().unwrap().iter().map(|message| message["body"].as_str().unwrap()).collect()
}

/// Repeats the request until its answer fulfils the condition.
async fn until<F: Future<Output = Value>>(request: impl Fn() -> F, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = request().await;
        if holds(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "still {answer}");
        sleep(Duration::from_millis(10)).await;
    }
}
