//! The provider: the project's own sandbox over real HTTP, on one thread in a process of its own.

use serde_json::Value;
use sms_sandbox::{Faults, Settings, serve};
use std::{future, process::ExitCode};
use tokio::net::TcpListener;

/// As which the benchmark starts itself.
pub const ROLE: &str = "provider";
/// Messages that it remembers, for the looks of workers and for telling a text that came twice.
const KEEP: usize = 10_000;

/// Until it is killed. Its first line is its address.
pub async fn run(latency_ms: &str) -> ExitCode {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("http://{}", listener.local_addr().expect("an address"));
    let latency: u64 = latency_ms.parse().expect("milliseconds are a number");
    let changes = serde_json::json!({ "latency_ms": latency });
    let changes = changes.as_object().expect("settings are an object");
    let faults = Faults::default().patched(changes).expect("the sandbox knows this setting");
    let settings = Settings { faults, callbacks: false, keep: KEEP, ..Settings::default() };
    match serve(listener, settings, future::pending()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the provider: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Texts that it took.
pub async fn accepted(url: &str) -> Result<u64, String> {
    let answer = reqwest::get(format!("{url}/sandbox/stats")).await.map_err(|error| error.to_string())?;
    let body = answer.bytes().await.map_err(|error| error.to_string())?;
    let stats: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    stats["accepted"].as_u64().ok_or_else(|| format!("the provider's statistics are {stats}"))
}
