//! The provider: the sandbox in this process, with random faults.

use crate::options::Options;
use serde::Deserialize;
use serde_json::{Value, json};
use sms_sandbox::{Account, FaultSettings, Settings, serve};
use std::future;
use time::OffsetDateTime;
use tokio::net::TcpListener;

/// How many answers a self-test loses, besides the random faults.
const LOST_ANSWERS: usize = 20;

pub(crate) const ACCOUNT: &str = "AC00000000000000000000000000000001";

/// A text that the provider accepted.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ProviderText {
    pub sid: String,
    pub to: String,
    pub body: String,
    #[serde(with = "time::serde::rfc3339")]
    pub received: OffsetDateTime,
}

#[derive(Debug)]
pub(crate) struct Provider {
    pub url: String,
    pub auth_token: String,
    client: reqwest::Client,
}

/// 5 % of the texts are throttled, 5 % get a 5xx, and 5 % a cut connection. Of the latter two, half are accepted. Other
/// faults are rarer.
fn faults() -> Value {
    json!({
        "latency_ms": 60, "list_lag_ms": 700, "retry_after": 1,
        "throttle": 0.05, "fail": 0.025, "accept_then_fail": 0.025, "cut": 0.025, "cut_before": 0.025,
        "hang": 0.002, "no_sid": 0.005, "garbage": 0.002, "redirect": 0.002,
    })
}

fn fault_settings(value: &Value) -> FaultSettings {
    let changes = value.as_object().expect("settings are an object");
    FaultSettings::default().patched(changes).expect("the sandbox knows these settings")
}

impl Provider {
    /// The seed determines its random faults.
    pub(crate) async fn start(seed: u64, options: &Options) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let auth_token = uuid::Uuid::new_v4().simple().to_string();
        let account = Account { sid: ACCOUNT.to_owned(), auth_token: auth_token.clone().into() };
        let mut faults = if options.honest_provider { json!({}) } else { faults() };
        if options.resends() {
            faults["next"] = json!(vec!["accept_then_fail"; LOST_ANSWERS]);
        }
        let settings = Settings {
            account: Some(account),
            faults: fault_settings(&faults),
            callbacks: options.has_receipts(),
            keep: usize::MAX,
            seed: Some(seed),
        };
        tokio::spawn(serve(listener, settings, future::pending()));
        let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        Self { url, auth_token, client }
    }

    /// Ends all faults. Its list lags as before.
    pub(crate) async fn end_faults(&self) {
        let mut settings = faults();
        for (name, share) in settings.as_object_mut().expect("settings are an object") {
            if share.is_f64() {
                *share = json!(0);
            } else if name == "latency_ms" {
                *share = json!(1);
            }
        }
        let url = format!("{}/sandbox/faults", self.url);
        let response =
            self.client.put(url).body(settings.to_string()).send().await.expect("the sandbox answers");
        assert!(response.status().is_success(), "{}", response.status());
    }

    /// All accepted texts, oldest first.
    pub(crate) async fn inbox(&self) -> Vec<ProviderText> {
        serde_json::from_slice(&self.get("/sandbox/messages").await).expect("the inbox can be read")
    }

    pub(crate) async fn stats(&self) -> Value {
        serde_json::from_slice(&self.get("/sandbox/stats").await).expect("the statistics can be read")
    }

    async fn get(&self, path: &str) -> Vec<u8> {
        let answer =
            self.client.get(format!("{}{path}", self.url)).send().await.expect("the sandbox answers");
        answer.bytes().await.expect("a body").to_vec()
    }
}
