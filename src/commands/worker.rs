//! `session-invite worker`: the main job. Wiring only.

use crate::{
    config::{ProviderConfig, WorkerArgs, WorkerConfig},
    db::{self, kinds, persist},
    group::directory::Directory,
    health::Health,
    invite::{
        Authenticator, Context, RefusalLog, key_spaces::KeySpaces, plan::Policy,
        refused_senders::RefusedSenders, sender_clocks::SenderClocks,
    },
    limits::Limits,
    measurements::Measurements,
    metrics::ShownBy,
    optouts::OptOuts,
    processes::{Heartbeat, Identity},
    queue::{
        self, ConsumedQueue, Consumer, ConsumerHealth, DirectReplies, EventPublisher, MarkerKeeper,
        Publisher, QueueDepths, QueueNames,
    },
    sessions::{
        self, ClaimTimes, ContentHasher, Losses, MarkerTable, OpenInvites, Outbox, PausedGroups, Rewinds,
        Sessions,
    },
    shutdown,
    sms::Sms,
    spans,
    supervise::{self, Task, TaskHandle},
    suspects::Suspects,
    trouble::Trouble,
};
use futures::future::{join, try_join_all};
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use tokio::sync::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long the sweep may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// Unacknowledged messages of the queue `.dropped` at most.
const DROPPED_PREFETCH: u16 = 10;

/// Runs until a signal. It returns only errors that do not pass by waiting.
pub(crate) async fn run(args: &WorkerArgs) -> anyhow::Result<()> {
    let config = args.check()?;
    // Two steps to a stop: no new work, then, when the grace is over, no work at all.
    let (stop, give_up) = (shutdown::on_signal()?, CancellationToken::new());
    supervise::watch_runtime()?;
    let health = Health::new(stop.clone());
    answer_operators(args, &config, &health, &give_up).await?;
    queue::keep_looking_at_nodes(&config.broker, give_up.clone());
    let exporter = config.traces.as_ref().map(spans::start).transpose().map_err(anyhow::Error::msg)?;
    let opening =
        db::open(&config.database, "session-invite worker", db::DatabaseClient::Worker, &health.database);
    let Some(opened) = stop.run_until_cancelled(opening).await.transpose()? else {
        return Ok(());
    };
    let pool = opened.keep_watching(give_up.clone());
    let heartbeat = report_itself(&config, &pool, &health, &give_up);
    let Some((directory, optouts)) = read_at_start(&config, &pool, &stop).await? else {
        return Ok(());
    };
    directory.keep_following(stop.clone());
    health.set_paused_groups(PausedGroups::new(pool.clone(), directory.clone()));
    measure(&config, &health, &pool, &directory, &give_up).await;
    let sms = Sms::new(&config.provider).map_err(anyhow::Error::msg)?;
    let hasher = ContentHasher::new(optouts.key());
    let provider = &config.provider;
    let times = ClaimTimes::of(provider.timeout, provider.settle);
    let rewinds = Rewinds::default();
    let losses = Losses { rewinds: rewinds.clone(), max_age: config.age.max_age };
    let invites = Arc::new(Context {
        authenticator: Authenticator::new(directory.clone(), give_up.clone()),
        sessions: Sessions::start(pool.clone(), times, losses, hasher.clone(), give_up.clone()),
        groups: directory,
        limits: Limits::start(pool.clone(), provider.per_second, stop.clone(), give_up.clone()),
        sms: sms.clone(),
        optouts,
        policy: policy(provider),
        refusal_log: RefusalLog::new(config.secrets_key.clone()),
        age: config.age,
        public_url: config.public_url.clone(),
        key_spaces: KeySpaces::default(),
        refused_senders: RefusedSenders::default(),
        sender_clocks: SenderClocks::default(),
    });
    let sweeping = sessions::sweep(pool.clone(), stop.clone());
    let outbox = Outbox::new(pool.clone());
    EventPublisher::new(outbox, config.broker.clone(), health.events.clone(), health.unbound.clone())
        .start(stop.clone());
    sessions::retain(pool.clone(), config.retention, hasher, stop.clone());
    let suspects = Suspects::new(pool.clone(), give_up.clone());
    let publisher = Publisher::start(Task::Replies, config.broker.clone(), give_up.clone());
    let names = QueueNames::new(&config.broker.queue_prefix);
    queue::resume(OpenInvites::new(pool.clone()), publisher.clone(), names.requests.clone(), stop.clone());
    keep_marker(&config, MarkerTable::new(pool, rewinds, times), &health, &publisher, &give_up);
    let consuming = consumers(&config, &health, &invites, &suspects, &publisher, &give_up)
        .map(|consumer| consumer.start(stop.clone()).ended());
    tokio::select! {
        ended = try_join_all(consuming) => {
            give_up.cancel();
            ended?;
        }
        () = grace(&config, &sms, &stop, &give_up) => {}
    }
    give_up.cancel();
    // Their last statements may finish within this.
    let _ = tokio::time::timeout(ENDS_WITHIN, join(sweeping.ended(), heartbeat.ended())).await;
    spans::finish(exporter).await;
    tracing::info!("stopped");
    Ok(())
}

/// Gives the busiest groups series of their own, and measures queues and tables for `/metrics`.
async fn measure(
    config: &WorkerConfig,
    health: &Health,
    pool: &PgPool,
    groups: &Arc<Directory>,
    give_up: &CancellationToken,
) {
    super::name_busiest_groups(pool).await;
    let queues = Arc::new(Mutex::new(QueueDepths::new(config.broker.clone())));
    let (groups, requests) = (groups.clone(), health.requests.clone());
    Measurements { pool: pool.clone(), groups, queues, requests }.start(give_up.clone());
}

/// Compares the database with the broker's last marker, and advances it, until `give_up`.
fn keep_marker(
    config: &WorkerConfig,
    table: MarkerTable,
    health: &Health,
    publisher: &Publisher,
    give_up: &CancellationToken,
) {
    let keeper = MarkerKeeper {
        table,
        config: config.broker.clone(),
        names: QueueNames::new(&config.broker.queue_prefix),
        publisher: publisher.clone(),
        problem: health.marker.clone(),
        last: Arc::default(),
    };
    keeper.start(give_up.clone());
}

fn policy(provider: &ProviderConfig) -> Policy {
    Policy { max_attempts: provider.max_attempts, settle: provider.settle, when_unsure: provider.when_unsure }
}

/// Starts the metrics, and serves `/healthz`, `/readyz` and `/metrics`.
async fn answer_operators(
    args: &WorkerArgs,
    config: &WorkerConfig,
    health: &Health,
    give_up: &CancellationToken,
) -> anyhow::Result<()> {
    let metrics = super::start_metrics(ShownBy::Worker)?;
    health.set_metrics(metrics.clone());
    super::keep_metrics_tidy(metrics);
    if let Err(error) = health.clone().serve(config.http_addr, give_up.clone()).await {
        let what = format!(
            "cannot listen on {} ({error}); set HTTP_ADDR to another address or port",
            config.http_addr
        );
        // Several workers on one machine work without a setting for each.
        anyhow::ensure!(!args.http.is_given(), "HTTP_ADDR: {what}");
        tracing::warn!("no /healthz, /readyz and /metrics: {what}");
    }
    Ok(())
}

/// Reports in the table of processes until `give_up`.
fn report_itself(
    config: &WorkerConfig,
    pool: &PgPool,
    health: &Health,
    give_up: &CancellationToken,
) -> TaskHandle {
    let heartbeat = Heartbeat {
        pool: pool.clone(),
        identity: Identity::of_worker(config),
        neighbours: health.neighbours.clone(),
    };
    let health = health.clone();
    heartbeat.start(move || health.self_report(), give_up.clone())
}

/// What the worker reads before the first invite. `None` when a signal comes first.
async fn read_at_start(
    config: &WorkerConfig,
    pool: &PgPool,
    stop: &CancellationToken,
) -> anyhow::Result<Option<(Arc<Directory>, OptOuts)>> {
    let (secrets, links) = (&config.secrets_key, &config.public_url.base);
    let open = || Directory::open(pool.clone(), secrets.clone(), links.clone());
    let directory = match persist(&kinds::READ_GROUPS, stop, open).await {
        Err(Trouble::Stopping) => return Ok(None),
        opened => Arc::new(opened?),
    };
    let open = || OptOuts::open(pool.clone(), secrets);
    match persist(&kinds::READ_OPTOUT_KEY, stop, open).await {
        Err(Trouble::Stopping) => Ok(None),
        opened => Ok(Some((directory, opened?))),
    }
}

/// The consumers of `.requests` and of `.dropped`. They share a gate, so that a suspect is worked alone in the process.
fn consumers(
    config: &WorkerConfig,
    health: &Health,
    invites: &Arc<Context>,
    suspects: &Suspects,
    publisher: &Publisher,
    give_up: &CancellationToken,
) -> [Consumer; 2] {
    let direct = DirectReplies::start(config.broker.clone(), give_up.clone());
    health.set_invites(publisher.clone(), invites.clone());
    let (alone_lock, queue_missing) = (Arc::default(), Arc::default());
    let consumer = |queue, prefetch, health: &Arc<ConsumerHealth>| Consumer {
        queue,
        prefetch,
        config: config.broker.clone(),
        names: QueueNames::new(&config.broker.queue_prefix),
        reply_to_allow: config.reply_to_allow.clone(),
        publisher: publisher.clone(),
        direct: direct.clone(),
        invites: invites.clone(),
        suspects: suspects.clone(),
        in_flight: TaskTracker::new(),
        alone_lock: Arc::clone(&alone_lock),
        queue_missing: Arc::clone(&queue_missing),
        health: health.clone(),
    };
    [
        consumer(ConsumedQueue::Requests, config.prefetch, &health.requests),
        consumer(ConsumedQueue::Dropped, DROPPED_PREFETCH, &health.dropped),
    ]
}

/// After a signal, waits until `SHUTDOWN_GRACE` is over, and the messages that are not finished are back in the queue.
async fn grace(config: &WorkerConfig, sms: &Sms, stop: &CancellationToken, give_up: &CancellationToken) {
    stop.cancelled().await;
    // An invite that waits for a permit at the provider has not begun. It goes back to the queue.
    sms.close();
    tokio::time::sleep(config.shutdown_grace).await;
    tracing::warn!("SHUTDOWN_GRACE is over; messages that are not finished go back to the queue");
    give_up.cancel();
    // Time to give them back.
    tokio::time::sleep(Duration::from_secs(1)).await;
}
