//! `session-invite worker`: the main job. Wiring only.

use crate::{
    config::{WorkerArgs, WorkerConfig},
    db::{self, kinds, persist},
    group::directory::Directory,
    health::Health,
    invite::{Authenticator, Context, plan::Policy},
    limits::Limits,
    optouts::OptOuts,
    queue::{self, Consumer, Consuming, DirectReplies, Events, Names, Publisher, Source},
    sessions::{self, ClaimTimes, Fingerprints, Outbox, Sessions},
    shutdown,
    sms::Sms,
    supervise::{self, Task, keep_up},
    suspects::Suspects,
    trouble::Trouble,
};
use futures::future::try_join_all;
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// How long the tasks that work on no invite may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// Messages in hand from the queue of what the broker dropped.
const DROPPED_PREFETCH: u16 = 10;

/// Runs until a signal; an error is one that no waiting mends.
pub async fn run(args: &WorkerArgs) -> anyhow::Result<()> {
    let config = args.check()?;
    // Two steps to a stop: no new work, and, when the grace is over, no work at all.
    let (stop, give_up) = (shutdown::on_signal()?, CancellationToken::new());
    supervise::watch_runtime()?;
    let health = Health::default();
    answer_operators(args, &config, &health, &give_up).await?;
    let opening = db::open(&config.database, "session-invite worker", db::Client::Worker, &health.database);
    let Some(opened) = stop.run_until_cancelled(opening).await.transpose()? else {
        return Ok(());
    };
    let pool = opened.keep_watching(give_up.clone());
    let Some((directory, optouts)) = read_at_start(&config, &pool, &stop).await? else {
        return Ok(());
    };
    directory.keep_following(stop.clone());
    let sms = Sms::new(&config.provider).map_err(anyhow::Error::msg)?;
    let fingerprints = Fingerprints::new(optouts.key());
    let provider = &config.provider;
    let times = ClaimTimes::of(provider.timeout, provider.settle);
    let invites = Arc::new(Context {
        authenticator: Authenticator::new(directory.clone(), give_up.clone()),
        sessions: Sessions::start(pool.clone(), times, fingerprints.clone(), give_up.clone()),
        groups: directory,
        limits: Limits::start(pool.clone(), provider.per_second, stop.clone(), give_up.clone()),
        sms: sms.clone(),
        optouts,
        policy: Policy {
            max_attempts: provider.max_attempts,
            settle: provider.settle,
            when_unsure: provider.when_unsure,
        },
        age: config.age,
        public_url: config.public_url.clone(),
    });
    let sweeping = sessions::sweep(pool.clone(), stop.clone());
    Events::new(Outbox::new(pool.clone()), config.broker.clone(), health.events.clone()).start(stop.clone());
    sessions::retain(pool.clone(), config.retention, fingerprints, stop.clone());
    let suspects = Suspects::new(pool, give_up.clone());
    let consuming = consumers(&config, &health, &invites, &suspects, &give_up)
        .map(|consumer| consumer.start(stop.clone()).ended());
    tokio::select! {
        ended = try_join_all(consuming) => {
            give_up.cancel();
            ended?;
        }
        () = grace(&config, &sms, &stop, &give_up) => {}
    }
    give_up.cancel();
    // Its statement is finished, if it takes no longer than that.
    let _ = tokio::time::timeout(ENDS_WITHIN, sweeping.ended()).await;
    tracing::info!("stopped");
    Ok(())
}

/// Counts, and answers `/healthz`, `/readyz` and `/metrics`.
async fn answer_operators(
    args: &WorkerArgs,
    config: &WorkerConfig,
    health: &Health,
    give_up: &CancellationToken,
) -> anyhow::Result<()> {
    let metrics = super::start_metrics()?;
    queue::metrics::show_in_flight();
    health.has_metrics(metrics.clone());
    keep_metrics_tidy(metrics);
    if let Err(error) = health.clone().serve(config.http_addr, give_up.clone()).await {
        let what = format!(
            "{} cannot be listened on ({error}); set HTTP_ADDR to another address or port",
            config.http_addr
        );
        // Several workers on one machine must not need a setting each.
        anyhow::ensure!(!args.http.is_given(), "HTTP_ADDR: {what}");
        tracing::warn!("no /healthz, /readyz and /metrics: {what}");
    }
    Ok(())
}

/// What has to be read before the first invite; `None` when a signal comes first.
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

/// Of the requests, and of what the broker dropped. Both work a suspect alone in the whole process.
fn consumers(
    config: &WorkerConfig,
    health: &Health,
    invites: &Arc<Context>,
    suspects: &Suspects,
    give_up: &CancellationToken,
) -> [Consumer; 2] {
    let publisher = Publisher::start(Task::Replies, config.broker.clone(), give_up.clone());
    let direct = DirectReplies::start(config.broker.clone(), give_up.clone());
    health.tells_of(publisher.clone(), invites.sms.clone());
    let (gate, queues_gone) = (Arc::default(), Arc::default());
    let consumer = |source, prefetch, consuming: &Arc<Consuming>| Consumer {
        source,
        prefetch,
        config: config.broker.clone(),
        names: Names::new(&config.broker.queue_prefix),
        reply_to_allow: config.reply_to_allow.clone(),
        publisher: publisher.clone(),
        direct: direct.clone(),
        invites: invites.clone(),
        suspects: suspects.clone(),
        in_hand: TaskTracker::new(),
        gate: Arc::clone(&gate),
        queues_gone: Arc::clone(&queues_gone),
        consuming: consuming.clone(),
    };
    [
        consumer(Source::Requests, config.prefetch, &health.consuming),
        consumer(Source::Dropped, DROPPED_PREFETCH, &health.dropped),
    ]
}

/// Ends when the time is over that work in hand has to end after a signal.
async fn grace(config: &WorkerConfig, sms: &Sms, stop: &CancellationToken, give_up: &CancellationToken) {
    stop.cancelled().await;
    // An invite that waits for a place has not begun, and goes back to the queue.
    sms.close();
    tokio::time::sleep(config.shutdown_grace).await;
    tracing::warn!("the grace is over; what is still in hand goes back to the queue");
    give_up.cancel();
    // Time to hand it back.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// What was recorded is gathered now and then, so that it does not pile up where nobody reads /metrics.
pub(super) fn keep_metrics_tidy(metrics: PrometheusHandle) {
    keep_up(Task::MetricsUpkeep, CancellationToken::new(), move |pulse| {
        let metrics = metrics.clone();
        async move {
            loop {
                pulse.idle();
                tokio::time::sleep(UPKEEP_EVERY).await;
                pulse.step("gathering what was recorded");
                metrics.run_upkeep();
            }
        }
    });
}
