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
    sessions::{self, ClaimTimes, Fingerprints, Sessions},
    shutdown,
    sms::Sms,
    supervise::{self, Task, keep_up},
    suspects::Suspects,
    trouble::Trouble,
};
use futures::future::try_join_all;
use metrics_exporter_prometheus::PrometheusHandle;
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
    let metrics = super::start_metrics()?;
    queue::metrics::show_in_flight();
    health.has_metrics(metrics.clone());
    keep_metrics_tidy(metrics);
    let answering = health.clone().serve(config.http_addr, give_up.clone()).await;
    if let Err(error) = answering {
        let what = format!(
            "{} cannot be listened on ({error}); set HTTP_ADDR to another address or port",
            config.http_addr
        );
        // Several workers on one machine must not need a setting each.
        anyhow::ensure!(!args.http.is_given(), "HTTP_ADDR: {what}");
        tracing::warn!("no /healthz, /readyz and /metrics: {what}");
    }
    let opening = db::open(&config.database, "session-invite worker", db::Client::Worker, &health.database);
    let Some(opened) = stop.run_until_cancelled(opening).await.transpose()? else {
        return Ok(());
    };
    let pool = opened.keep_watching(give_up.clone());

    let (secrets, links) = (config.secrets_key.clone(), config.public_url.base.clone());
    let open = || Directory::open(pool.clone(), secrets.clone(), links.clone());
    let directory = match persist(&kinds::READ_GROUPS, &stop, open).await {
        Err(Trouble::Stopping) => return Ok(()),
        opened => Arc::new(opened?),
    };
    let open = || OptOuts::open(pool.clone(), &secrets);
    let optouts = match persist(&kinds::READ_OPTOUT_KEY, &stop, open).await {
        Err(Trouble::Stopping) => return Ok(()),
        opened => opened?,
    };
    directory.keep_following(stop.clone());
    let sms = Sms::new(&config.provider).map_err(anyhow::Error::msg)?;
    let provider = &config.provider;
    let times = ClaimTimes::of(provider.timeout, provider.settle);
    let fingerprints = Fingerprints::new(optouts.key());
    let invites = Arc::new(Context {
        authenticator: Authenticator::new(directory.clone(), give_up.clone()),
        sessions: Sessions::start(pool.clone(), times, fingerprints.clone(), give_up.clone()),
        groups: directory,
        limits: Limits::start(pool.clone(), provider.per_second, stop.clone(), give_up.clone()),
        sms: sms.clone(),
        optouts,
        suspects: Suspects::new(pool.clone(), give_up.clone()),
        policy: Policy {
            max_attempts: provider.max_attempts,
            settle: provider.settle,
            when_unsure: provider.when_unsure,
        },
        age: config.age,
        public_url: config.public_url.clone(),
    });
    let sweeping = sessions::sweep(pool.clone(), stop.clone());
    Events::new(pool.clone(), config.broker.clone(), health.events.clone()).start(stop.clone());
    sessions::retain(pool.clone(), config.retention, fingerprints, stop.clone());
    let publisher = Publisher::start(Task::Replies, config.broker.clone(), give_up.clone());
    let direct = DirectReplies::start(config.broker.clone(), give_up.clone());
    health.tells_of(publisher.clone(), sms.clone());
    let publishers = (publisher, direct);
    let requests = consumer(&config, publishers.clone(), invites.clone(), health.consuming);
    let dropped = Consumer {
        source: Source::Dropped,
        prefetch: DROPPED_PREFETCH,
        gate: requests.gate.clone(),
        queues_gone: requests.queues_gone.clone(),
        ..consumer(&config, publishers, invites, health.dropped)
    };

    let in_time = async {
        stop.cancelled().await;
        // Whoever waits for a place has not begun, and goes back to the queue.
        sms.close();
        tokio::time::sleep(config.shutdown_grace).await;
        tracing::warn!("the grace is over; what is still in hand goes back to the queue");
        give_up.cancel();
        // Time to hand it back.
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let consuming = [requests, dropped].map(|consumer| consumer.start(stop.clone()).ended());
    tokio::select! {
        ended = try_join_all(consuming) => {
            give_up.cancel();
            ended?;
        }
        () = in_time => {}
    }
    give_up.cancel();
    // Its statement is finished, if it takes no longer than that.
    let _ = tokio::time::timeout(ENDS_WITHIN, sweeping.ended()).await;
    tracing::info!("stopped");
    Ok(())
}

fn consumer(
    config: &WorkerConfig,
    (publisher, direct): (Publisher, DirectReplies),
    invites: Arc<Context>,
    consuming: Arc<Consuming>,
) -> Consumer {
    Consumer {
        source: Source::Requests,
        config: config.broker.clone(),
        names: Names::new(&config.broker.queue_prefix),
        prefetch: config.prefetch,
        reply_to_allow: config.reply_to_allow.clone(),
        publisher,
        direct,
        invites,
        in_hand: TaskTracker::new(),
        gate: Arc::default(),
        queues_gone: Arc::default(),
        consuming,
    }
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
