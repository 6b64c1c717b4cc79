//! What the handlers share.

use super::{
    client::Proxies, miss_limit::MissLimit, problem::Problem, refused_receipts::RefusedReceipts,
    request_target::RequestTarget,
};
use crate::{
    config::GatewayConfig,
    db,
    group::directory::Directory,
    invite::{Authenticator, RefusalLog},
    limits::Guesses,
    optouts::OptOuts,
    processes::Neighbours,
    queue::{QueueNames, RpcClient},
    sessions::PausedGroups,
};
use metrics_exporter_prometheus::PrometheusHandle;
use std::{
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::Duration,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What the handlers share. The gateway answers from the start; database and broker are added once they are reached.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub config: GatewayConfig,
    pub names: QueueNames,
    /// What `/readyz` reports about the database.
    pub database: db::Watch,
    /// The other processes that are silent.
    pub neighbours: Neighbours,
    /// Cancelled by the signal to stop.
    pub(super) stop: CancellationToken,
    pub(super) services: OnceLock<Services>,
    pub(super) rpc: OnceLock<RpcClient>,
    pub(super) metrics: PrometheusHandle,
    /// The path of `PUBLIC_URL`, without a slash at the end.
    pub(super) prefix: String,
    pub(super) in_flight: AtomicUsize,
    /// The requests that may wait for the reply of a paused group's invite. The others need places too.
    pub(super) paused_waits: Semaphore,
    /// Handlers that run on tasks of their own; their connections may have ended.
    pub(super) handlers: TaskTracker,
    /// Cancelled shortly before `SHUTDOWN_GRACE` ends: requests that still wait are answered at once.
    pub(super) last_call: CancellationToken,
    pub(super) proxies: Proxies,
    pub(super) wrong_links: MissLimit,
    pub(super) refusal_log: RefusalLog,
    pub(super) refused_receipts: RefusedReceipts,
    /// Why there is no `/metrics`. The gateway works without it.
    metrics_problem: OnceLock<String>,
}

/// What needs the database.
#[derive(Debug)]
pub(crate) struct Services {
    pub pool: db::Pool,
    pub directory: Arc<Directory>,
    pub authenticator: Authenticator,
    pub guesses: Guesses,
    pub optouts: OptOuts,
    /// What `/readyz` says of the paused groups.
    pub paused: PausedGroups,
}

impl Gateway {
    pub(crate) fn new(config: GatewayConfig, metrics: PrometheusHandle, stop: CancellationToken) -> Self {
        // The configuration has checked that it is a URL.
        let path = url::Url::parse(&config.public_url.base).map(|url| url.path().to_owned());
        Self {
            names: QueueNames::new(&config.broker.queue_prefix),
            database: db::Watch::new(db::kinds::GATEWAY_STATEMENTS),
            neighbours: Neighbours::default(),
            stop,
            services: OnceLock::new(),
            rpc: OnceLock::new(),
            metrics,
            prefix: path.unwrap_or_default().trim_end_matches('/').to_owned(),
            in_flight: AtomicUsize::new(0),
            paused_waits: Semaphore::new((config.http.concurrency / PAUSED_SHARE).max(1)),
            handlers: TaskTracker::new(),
            last_call: CancellationToken::new(),
            proxies: Proxies::new(config.http.trusted_proxies.clone()),
            wrong_links: MissLimit::of_links(),
            refusal_log: RefusalLog::new(config.secrets_key.clone()),
            refused_receipts: RefusedReceipts::default(),
            metrics_problem: OnceLock::new(),
            config,
        }
    }

    /// Sets what needs the database, once the database is reached.
    pub(crate) fn set_services(&self, services: Services) {
        let _ = self.services.set(services);
    }

    /// Sets the way to the workers. It waits for the broker itself.
    pub(crate) fn set_rpc(&self, rpc: RpcClient) {
        let _ = self.rpc.set(rpc);
    }

    /// Sets why there is no `/metrics`.
    pub(crate) fn set_metrics_problem(&self, why: String) {
        let _ = self.metrics_problem.set(why);
    }

    /// Answers the requests that still wait, for a reply or for the database.
    pub(crate) fn last_call(&self) {
        self.last_call.cancel();
    }

    /// Waits until the handlers are done. Call it once all connections are closed, so that no handler begins any more.
    pub(crate) async fn idle(&self) {
        self.handlers.close();
        self.handlers.wait().await;
    }

    /// Problems that `/readyz` lists, though the gateway is ready.
    pub(super) fn remarks(&self) -> impl Iterator<Item = String> {
        self.metrics_problem.get().cloned().into_iter().chain(self.remarks_without_count())
    }

    /// Remarks that `session_invite_problems` leaves out: strangers can cause them, or they have an alert of their own.
    pub(super) fn remarks_without_count(&self) -> impl Iterator<Item = String> {
        let receipts = self.refused_receipts.problem(&self.config.public_url.base);
        let credentials = self.services.get().map(|services| services.authenticator.problems());
        receipts.into_iter().chain(credentials.into_iter().flatten())
    }

    /// What a stranger can cause by a single request, and means something only to those who know their proxies. So `/readyz` and
    /// `doctor` say it, and the console does not list it among the problems.
    pub(crate) fn sighting(&self) -> Option<String> {
        self.proxies.sighting()
    }

    /// The request's URL as its client knows it: under `PUBLIC_URL`, even if proxies rewrote the path.
    pub(crate) fn public_url(&self, target: &RequestTarget) -> String {
        let target = target.0.as_str();
        let without = target.strip_prefix(&self.prefix).filter(|rest| rest.starts_with('/'));
        [&self.config.public_url.base, without.unwrap_or(target)].concat()
    }

    /// The path of `PUBLIC_URL`, without a slash at the end. Links to the gateway's own pages begin with it.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The database and what needs it; 503 until it was reached.
    pub(crate) fn services(&self) -> Result<&Services, Problem> {
        self.services.get().ok_or_else(|| Problem::unavailable("the database is away"))
    }

    /// The way to the workers; 503 while the broker is away or too many invites wait for a worker.
    pub(crate) fn rpc(&self) -> Result<&RpcClient, Problem> {
        let rpc = self.rpc.get();
        match rpc.and_then(RpcClient::backlog).zip(rpc) {
            None => Err(Problem::unavailable("the broker is away")),
            Some((waiting, _)) if waiting > self.config.http.backlog => {
                Err(Problem::unavailable("too many invites wait for a worker")
                    .retry_after(BACKLOG_RETRY_AFTER))
            }
            Some((_, rpc)) => Ok(rpc),
        }
    }
}

/// Of `GATEWAY_CONCURRENCY`, the part that the callers of paused groups may take: a quarter.
const PAUSED_SHARE: usize = 4;
/// `Retry-After` while too many invites wait. The queue is mostly shorter by then.
const BACKLOG_RETRY_AFTER: Duration = Duration::from_secs(5);
