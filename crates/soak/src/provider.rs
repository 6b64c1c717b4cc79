//! The provider: the sandbox, in this process, with faults by share.

use crate::{account::Accepted, options::Options};
use serde_json::{Value, json};
use sms_sandbox::{Account, Faults, Settings, serve};
use std::future;
use tokio::net::TcpListener;

/// Texts whose answer is surely lost in a self-test, whatever the draws of faults.
const LOST_AT_LEAST: usize = 20;

pub const ACCOUNT: &str = "AC00000000000000000000000000000001";

#[derive(Debug)]
pub struct Provider {
    pub url: String,
    pub auth_token: String,
    client: reqwest::Client,
}

/// 5 % are throttled, 5 % end as 5xx (half of them accepted), and 5 % as a cut line (likewise); then the rarer troubles.
fn faults() -> Value {
    json!({
        "latency_ms": 60, "list_lag_ms": 700, "retry_after": 1,
        "throttle": 0.05, "fail": 0.025, "accept_then_fail": 0.025, "cut": 0.025, "cut_before": 0.025,
        "hang": 0.002, "no_sid": 0.005, "garbage": 0.002, "redirect": 0.002,
    })
}

fn changes(value: &Value) -> Faults {
    let changes = value.as_object().expect("settings are an object");
    Faults::default().patched(changes).expect("the sandbox knows these settings")
}

impl Provider {
    /// Its draws of faults come of the seed.
    pub async fn start(seed: u64, options: &Options) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let auth_token = uuid::Uuid::new_v4().simple().to_string();
        let account = Account { sid: ACCOUNT.to_owned(), auth_token: auth_token.clone().into() };
        let mut faults_set = if options.honest_provider { json!({}) } else { faults() };
        if options.resends() {
            faults_set["next"] = json!(vec!["accept_then_fail"; LOST_AT_LEAST]);
        }
        let settings = Settings {
            account: Some(account),
            faults: changes(&faults_set),
            callbacks: options.has_receipts(),
            keep: usize::MAX,
            seed: Some(seed),
        };
        tokio::spawn(serve(listener, settings, future::pending()));
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        Self { url, auth_token, client }
    }

    /// From now on nothing goes wrong. Its list lags as before.
    pub async fn calm(&self) {
        let mut calm = faults();
        for (name, share) in calm.as_object_mut().expect("settings are an object") {
            if share.is_f64() {
                *share = json!(0);
            } else if name == "latency_ms" {
                *share = json!(1);
            }
        }
        let url = format!("{}/sandbox/faults", self.url);
        let set = self.client.put(url).body(calm.to_string()).send().await.expect("the sandbox answers");
        assert!(set.status().is_success(), "{}", set.status());
    }

    /// All that it ever accepted, oldest first.
    pub async fn inbox(&self) -> Vec<Accepted> {
        serde_json::from_slice(&self.get("/sandbox/messages").await).expect("the inbox can be read")
    }

    pub async fn stats(&self) -> Value {
        serde_json::from_slice(&self.get("/sandbox/stats").await).expect("the statistics can be read")
    }

    async fn get(&self, path: &str) -> Vec<u8> {
        let answer =
            self.client.get(format!("{}{path}", self.url)).send().await.expect("the sandbox answers");
        answer.bytes().await.expect("a body").to_vec()
    }
}
