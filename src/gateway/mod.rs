//! The gateway: the HTTP request that invites replace, by way of the queue; look-ups for agents; what visitors open; and
//! the provider's webhooks (contract, section 13).
//!
//! `server` has the connections, `front` what all requests have in common, and the rest is a file for each subject.

mod agents;
mod body;
mod caller;
mod client;
mod docs;
mod front;
mod health;
mod host;
mod invite;
mod misses;
mod openapi;
mod page;
mod problem;
mod query;
pub mod routes;
mod server;
mod visitor;
mod webhooks;

pub use body::Content;
use client::Proxies;
pub use client::{ClientAddress, Network};
pub use front::AsAsked;
use misses::Misses;
pub use openapi::document;
pub use page::{escape, page};
pub use problem::{Own, Problem};
pub use server::{listen, start};

use crate::{
    config::GatewayConfig,
    credential::Authenticator,
    db,
    group::directory::Directory,
    limits::Guesses,
    optouts::OptOuts,
    queue::{Asking, Names},
};
use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use std::{
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may remember what it may ask.
const CORS_MAX_AGE: Duration = Duration::from_hours(1);

/// What the handlers share. It answers from the start on, and gets its services as they are reached.
#[derive(Debug)]
pub struct Gateway {
    pub config: GatewayConfig,
    pub names: Names,
    /// What `/readyz` says of the database.
    pub database: db::Watch,
    services: OnceLock<Services>,
    asking: OnceLock<Asking>,
    metrics: PrometheusHandle,
    /// The path of `PUBLIC_URL`, without a slash at the end.
    prefix: String,
    in_hand: AtomicUsize,
    /// Handlers at work whose connections may be gone.
    working: TaskTracker,
    /// Cancelled shortly before the grace ends: what waits is answered now.
    last_call: CancellationToken,
    proxies: Proxies,
    misses: Misses,
    /// What the operator should look at, and goes on all the same.
    troubles: OnceLock<String>,
}

/// What needs the database.
#[derive(Debug)]
pub struct Services {
    pub pool: PgPool,
    pub directory: Arc<Directory>,
    pub authenticator: Authenticator,
    pub guesses: Guesses,
    pub optouts: OptOuts,
}

impl Gateway {
    pub fn new(config: GatewayConfig, metrics: PrometheusHandle) -> Self {
        // It was checked to be a URL.
        let path = url::Url::parse(&config.public_url.base).map(|url| url.path().to_owned());
        Self {
            names: Names::new(&config.broker.queue_prefix),
            database: db::Watch::new(db::kinds::OF_THE_GATEWAY),
            services: OnceLock::new(),
            asking: OnceLock::new(),
            metrics,
            prefix: path.unwrap_or_default().trim_end_matches('/').to_owned(),
            in_hand: AtomicUsize::new(0),
            working: TaskTracker::new(),
            last_call: CancellationToken::new(),
            proxies: Proxies::new(config.http.trusted_proxies.clone()),
            misses: visitor::misses(),
            troubles: OnceLock::new(),
            config,
        }
    }

    /// The database is reached for the first time.
    pub fn has_services(&self, services: Services) {
        let _ = self.services.set(services);
    }

    /// The broker is reached for the first time, and has the queues.
    pub fn has_asking(&self, asking: Asking) {
        let _ = self.asking.set(asking);
    }

    /// `/metrics` has no address of its own.
    pub fn has_no_metrics(&self, why: String) {
        let _ = self.troubles.set(why);
    }

    /// Answers what still waits: an invite's reply, the database.
    pub fn last_call(&self) {
        self.last_call.cancel();
    }

    /// Waits until the handlers are done, which no new ones join once all connections are closed.
    pub async fn idle(&self) {
        self.working.close();
        self.working.wait().await;
    }

    /// What an operator is told beside what readiness depends on.
    fn remarks(&self) -> impl Iterator<Item = String> {
        self.troubles.get().cloned().into_iter().chain(self.proxies.problem())
    }

    /// The address as whoever asked knows it: that of `PUBLIC_URL`, whatever proxies made of it.
    pub fn public_address(&self, asked: &AsAsked) -> String {
        let asked = asked.0.as_str();
        let without = asked.strip_prefix(&self.prefix).filter(|rest| rest.starts_with('/'));
        [&self.config.public_url.base, without.unwrap_or(asked)].concat()
    }

    /// The database, and what stands on it.
    pub fn services(&self) -> Result<&Services, Problem> {
        self.services.get().ok_or_else(|| Problem::unavailable("the database is away"))
    }

    /// The way to the workers, while the broker is there and not too much waits for them.
    pub fn asking(&self) -> Result<&Asking, Problem> {
        let asking = self.asking.get();
        match asking.and_then(Asking::backlog).zip(asking) {
            None => Err(Problem::unavailable("the broker is away")),
            Some((waiting, _)) if waiting > self.config.http.backlog => {
                Err(Problem::unavailable("too many invites wait for a worker").retry_after(BACKLOG_SINKS))
            }
            Some((_, asking)) => Ok(asking),
        }
    }
}

/// What a deep queue takes to become less deep.
const BACKLOG_SINKS: Duration = Duration::from_secs(5);

/// What the fuzzing targets call (docs/FUZZING.md).
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::{
        visitor::written_token,
        webhooks::{decoded, form},
    };
}

/// Every address with its handler.
fn router(gateway: Arc<Gateway>) -> Router {
    let cors = cors(&gateway.config.http.cors_origins);
    let routes = Router::new()
        .route(routes::SMS_INVITE.path, post(invite::sms_invite))
        .route(routes::SESSION.path, get(agents::look_up))
        .route(routes::JOIN.path, post(agents::join))
        .route(routes::END.path, post(agents::end))
        .route(routes::VISITOR.path, get(visitor::page))
        .route(routes::TWILIO_STATUS.path, post(webhooks::status))
        .route(routes::TWILIO_INBOUND.path, post(webhooks::inbound))
        .route(routes::OPENAPI.path, get(openapi::serve))
        .route(routes::DOCS.path, get(docs::serve))
        .route(routes::HEALTHZ.path, get(health::healthz))
        .route(routes::READYZ.path, get(health::readyz))
        .fallback(async || {
            Problem::new(Own::NotFound, "nothing is at this address; /docs lists what there is")
        })
        .method_not_allowed_fallback(async || {
            Problem::new(Own::MethodNotAllowed, "the address takes other methods; see the header Allow")
        })
        .with_state(gateway);
    match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

/// What operators ask on `HTTP_ADDR`.
pub fn operators(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .with_state(gateway)
}

/// For pages of these origins, if any. Credentials are in headers that a page sets itself, and never in cookies.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    let allowed = match origins.as_slice() {
        [] => return None,
        any if any.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        _ => AllowOrigin::list(origins),
    };
    let asked = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        HeaderName::from_static("x-gssnid"),
        HeaderName::from_static("traceparent"),
        invite::IDEMPOTENCY_KEY,
    ];
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(asked)
        .expose_headers([invite::IDEMPOTENCY_KEY, front::X_REQUEST_ID, header::RETRY_AFTER])
        .max_age(CORS_MAX_AGE);
    Some(layer)
}
