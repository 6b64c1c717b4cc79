//! What the handlers share.

use super::{as_asked::AsAsked, client::Proxies, misses::Misses, problem::Problem};
use crate::{
    config::GatewayConfig,
    db,
    group::directory::Directory,
    invite::Authenticator,
    limits::Guesses,
    optouts::OptOuts,
    queue::{Asking, Names},
};
use metrics_exporter_prometheus::PrometheusHandle;
use std::{
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What the handlers share. It answers from the start on, and gets its services as they are reached.
#[derive(Debug)]
pub struct Gateway {
    pub config: GatewayConfig,
    pub names: Names,
    /// What `/readyz` says of the database.
    pub database: db::Watch,
    pub(super) services: OnceLock<Services>,
    pub(super) asking: OnceLock<Asking>,
    pub(super) metrics: PrometheusHandle,
    /// The path of `PUBLIC_URL`, without a slash at the end.
    pub(super) prefix: String,
    pub(super) in_hand: AtomicUsize,
    /// Handlers at work whose connections may be gone.
    pub(super) working: TaskTracker,
    /// Cancelled shortly before the grace ends: what waits is answered now.
    pub(super) last_call: CancellationToken,
    pub(super) proxies: Proxies,
    pub(super) misses: Misses,
    /// What the operator should look at, and goes on all the same.
    troubles: OnceLock<String>,
}

/// What needs the database.
#[derive(Debug)]
pub struct Services {
    pub pool: db::Pool,
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
            misses: Misses::of_links(),
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
    pub(super) fn remarks(&self) -> impl Iterator<Item = String> {
        self.troubles.get().cloned().into_iter().chain(self.proxies.problem())
    }

    /// The address as the client knows it: under `PUBLIC_URL`, however proxies rewrote it.
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
