//! A local Twilio-style SMS provider, over real HTTP, for developing and testing the worker.
//!
//! It takes messages and lists them as Twilio does (`create`, `list`), sends signed status callbacks
//! (`callback`), fails on purpose (`faults`), and shows what it accepted: to tests under `/sandbox`
//! (`control`), and to people as an inbox at `/`. It texts nobody, and keeps all in memory.

mod auth;
mod callback;
mod control;
mod create;
mod error;
mod faults;
mod list;
mod message;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod wire;

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

pub use self::faults::{BadSetting, Fault, Faults};
pub use self::message::Deliver;

use self::error::ApiError;
use self::state::{Shared, State};
use self::wire::{Scissors, Wires};

/// The largest request body, in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// How long requests in hand may take to end once `shutdown` has come.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// How the sandbox behaves.
#[derive(Debug)]
pub struct Settings {
    /// The account that it serves; without one, any non-empty user and password will do.
    pub account: Option<Account>,
    /// The faults at the start; `PUT /sandbox/faults` changes them.
    pub faults: Faults,
    /// Whether messages with a `StatusCallback` get one.
    pub callbacks: bool,
    /// How many of the newest messages to keep, at least one.
    pub keep: usize,
    /// Seeds the draws of faults; without a seed they differ from run to run.
    pub seed: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { account: None, faults: Faults::default(), callbacks: true, keep: 10_000, seed: None }
    }
}

/// The one account that requests must come from.
#[derive(Debug)]
pub struct Account {
    pub sid: String,
    pub auth_token: SecretString,
}

/// Serves until `shutdown` completes, and a second more for the requests in hand.
///
/// Installs rustls' ring provider if the process has none yet, since callbacks may go to `https` URLs.
///
/// # Errors
///
/// If the HTTP client for callbacks cannot be built.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let state = Arc::new(State::new(settings)?);
    let stopping = state.stopping.clone();
    let wires = Wires::new(listener, Arc::clone(&state.stats.open_connections));
    let service = router(state).into_make_service_with_connect_info::<Scissors>();
    let served = axum::serve(wires, service).with_graceful_shutdown(stopping.clone().cancelled_owned());
    // A client that never ends its request must not keep the process alive.
    let overdue = async {
        shutdown.await;
        stopping.cancel();
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    tokio::select! {
        ended = served => ended,
        () = overdue => Ok(()),
    }
}

fn router(state: Shared) -> Router {
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
