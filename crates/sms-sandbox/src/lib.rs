//! A local Twilio-style SMS provider, over real HTTP, for developing and testing the worker.
//!
//! It accepts and lists messages as Twilio does (`create`, `list`), sends signed status callbacks
//! (`callback`) and fails on purpose (`faults`). It shows the accepted messages to tests under `/sandbox`
//! (`control`), and to people as an inbox at `/`. It sends no SMS, and keeps everything in memory.

mod auth;
mod callback;
mod connection;
mod control;
mod counters;
mod create;
mod error;
mod faults;
mod list;
mod message;
mod state;
mod store;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri};
use axum::routing::{get, post};
use secrecy::SecretString;
use sms_provider::codes;
use tokio::net::TcpListener;

pub use self::faults::{Fault, FaultSettings, SettingError};
pub use self::message::DeliveryOutcome;

use self::connection::{ConnectionCutter, CuttableListener};
use self::error::ApiError;
use self::state::{SandboxState, SharedState};

/// The largest request body, in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// How long requests in flight may take to end once `shutdown` has completed.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// How the sandbox behaves.
#[derive(Debug)]
pub struct Settings {
    /// The account that it serves. Without one, it accepts any non-empty user and password.
    pub account: Option<Account>,
    /// The faults at the start. `PUT /sandbox/faults` changes them.
    pub faults: FaultSettings,
    /// Whether messages with a `StatusCallback` get one.
    pub callbacks: bool,
    /// How many of the newest messages to keep, at least one.
    pub keep: usize,
    /// Seeds the random choice of faults. Without a seed it differs from run to run.
    pub seed: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { account: None, faults: FaultSettings::default(), callbacks: true, keep: 10_000, seed: None }
    }
}

/// The only account whose requests are accepted.
#[derive(Debug)]
pub struct Account {
    /// The account's id, `AC…`.
    pub sid: String,
    /// The password of HTTP basic authentication, which also signs receipts.
    pub auth_token: SecretString,
}

/// Serves until `shutdown` completes, and one second longer for the requests in flight.
///
/// Installs rustls' ring provider if the process has no provider yet, since callbacks may go to `https` URLs.
///
/// # Errors
///
/// If the HTTP client for callbacks cannot be built.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let state = Arc::new(SandboxState::new(settings)?);
    let stopping = state.stopping.clone();
    let connections = CuttableListener::new(listener, Arc::clone(&state.counters.open_connections));
    let service = router(state).into_make_service_with_connect_info::<ConnectionCutter>();
    let served = axum::serve(connections, service).with_graceful_shutdown(stopping.clone().cancelled_owned());
    // A client that never ends its request must not keep the process alive.
    let grace_expired = async {
        shutdown.await;
        stopping.cancel();
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    tokio::select! {
        ended = served => ended,
        () = grace_expired => Ok(()),
    }
}

fn router(state: SharedState) -> Router {
    Router::new()
        .route("/2010-04-01/Accounts/{sid}/Messages.json", post(create::create).get(list::list))
        .route("/2010-04-01/Accounts/{sid}/Messages/{file}", get(list::fetch))
        .route("/", get(control::inbox))
        .route("/readyz", get(control::readiness))
        .route("/sandbox/faults", get(control::faults).put(control::set_faults))
        .route("/sandbox/messages", get(control::messages).delete(control::clear))
        .route("/sandbox/stats", get(control::stats))
        .fallback(async |uri: Uri| ApiError::not_found(uri.path()))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, codes::METHOD_NOT_ALLOWED, "Method not allowed")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(state)
}
