//! The provider: the project's sandbox over real HTTP, on one thread of its own process.

use serde_json::Value;
use sms_sandbox::{FaultSettings, Settings, serve};
use std::{future, process::ExitCode};
use tokio::net::TcpListener;

/// How many messages it keeps, for the workers' looks at its list and to count repeated texts.
const KEEP: usize = 10_000;

/// Runs until it is killed. The first line that it prints is its URL.
pub(crate) async fn run(latency_ms: u64) -> ExitCode {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("http://{}", listener.local_addr().expect("an address"));
    let changes = serde_json::json!({ "latency_ms": latency_ms });
    let changes = changes.as_object().expect("settings are an object");
    let faults = FaultSettings::default().patched(changes).expect("the sandbox knows this setting");
    let settings = Settings { faults, callbacks: false, keep: KEEP, ..Settings::default() };
    match serve(listener, settings, future::pending()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the provider: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many texts it accepted.
pub(crate) async fn accepted(url: &str) -> Result<u64, String> {
    let answer = reqwest::get(format!("{url}/sandbox/stats")).await.map_err(|error| error.to_string())?;
    let body = answer.bytes().await.map_err(|error| error.to_string())?;
    let stats: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    stats["accepted"].as_u64().ok_or_else(|| format!("the provider's statistics are {stats}"))
}
