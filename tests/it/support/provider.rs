//! The sandbox, in this process, on a thread and a port of its own.

use super::until;
use serde_json::{Value, json};
use sms_sandbox::{Account, Settings, serve};
use tokio_util::sync::{CancellationToken, DropGuard};

pub const ACCOUNT: &str = "AC00000000000000000000000000000001";

/// A provider that serves one account.
pub struct Provider {
    pub url: String,
    pub auth_token: String,
    client: reqwest::Client,
    _serving: DropGuard,
}

impl Provider {
    pub fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let auth_token = uuid::Uuid::new_v4().simple().to_string();
        let account = Account { sid: ACCOUNT.to_owned(), auth_token: auth_token.clone().into() };
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        // Its own thread, so that a test that waits for a child process does not block the provider.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime for the sandbox").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let settings = Settings { account: Some(account), ..Settings::default() };
                serve(listener, settings, stopped).await.expect("the sandbox serves");
            });
        });
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        Self { url, auth_token, client, _serving: stop.drop_guard() }
    }

    /// The texts that it accepted, oldest first.
    pub async fn texts(&self) -> Vec<Value> {
        match self.get("/sandbox/messages").await {
            Value::Array(texts) => texts,
            other => panic!("{other}"),
        }
    }

    /// The only text that it accepted.
    pub async fn text(&self) -> Value {
        let mut texts = self.texts().await;
        assert_eq!(texts.len(), 1, "one text is expected: {texts:#?}");
        texts.remove(0)
    }

    /// How many requests to create a message came, accepted or not.
    pub async fn posts(&self) -> u64 {
        self.get("/sandbox/stats").await["posts"].as_u64().expect("a count")
    }

    /// Waits until so many texts were posted: the provider has them, and may not have answered yet.
    pub async fn until_posts(&self, count: u64) {
        until(&format!("{count} texts are posted"), || async { (self.posts().await >= count).then_some(()) })
            .await;
    }

    /// Accepts a text of another system.
    pub async fn take(&self, to: &str, body: &str) {
        let form = [("To", to), ("From", "+15005550006"), ("Body", body)];
        let url = format!("{}/2010-04-01/Accounts/{ACCOUNT}/Messages.json", self.url);
        let request = self.client.post(url).basic_auth(ACCOUNT, Some(&self.auth_token)).form(&form);
        assert!(request.send().await.expect("the sandbox answers").status().is_success());
    }

    /// Plans the answers to the next texts: names of faults, or `ok`.
    pub async fn next(&self, turns: &[&str]) {
        self.set(json!({ "next": turns })).await;
    }

    pub async fn set(&self, faults: Value) {
        let request = self.client.put(format!("{}/sandbox/faults", self.url)).body(faults.to_string());
        let response = request.send().await.expect("the sandbox answers");
        assert!(response.status().is_success(), "{faults}: {}", response.status());
    }

    async fn get(&self, path: &str) -> Value {
        let response =
            self.client.get(format!("{}{path}", self.url)).send().await.expect("the sandbox answers");
        serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
    }
}
