//! `session-invite gateway`: the HTTP front of the queue. Wiring only.

use super::worker::keep_metrics_tidy;
use crate::{
    backoff::Backoff,
    config::{BrokerConfig, GatewayArgs, GatewayConfig},
    db::{self, kinds, persist},
    gateway::{self, Gateway, Services},
    group::directory::Directory,
    health,
    http::Connections,
    invite::Authenticator,
    limits::Guesses,
    optouts::OptOuts,
    queue::{self, Asking},
    shutdown, supervise,
    trouble::Trouble,
};
use anyhow::Context;
use std::{io, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// What is left of the grace at the last call, for its answers to go out; of a short grace a quarter.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);
/// How much longer than the grace answers that are being written may take.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);

/// Runs until a signal; an error is one that no waiting mends.
pub async fn run(args: &GatewayArgs) -> anyhow::Result<()> {
    let config = args.check()?;
    // Two steps to a stop: no new requests, and, when the grace is over, no waiting for replies.
    let (stop, give_up) = (shutdown::on_signal()?, CancellationToken::new());
    supervise::watch_runtime()?;
    let metrics = super::start_metrics()?;
    keep_metrics_tidy(metrics.clone());
    let addr = config.http.addr;
    let listener = gateway::listen(addr).with_context(|| {
        format!("GATEWAY_ADDR: {addr} cannot be listened on; set another address or port")
    })?;
    tracing::info!(addr = %listener.local_addr()?, "answering");
    if config.twilio_auth_token.is_none() {
        tracing::warn!("TWILIO_AUTH_TOKEN is not set: the provider's webhooks are refused");
    }
    let grace = config.shutdown_grace;
    let gateway = Arc::new(Gateway::new(config.clone(), metrics));
    let answer_operators = answer_operators(&gateway, args, &give_up);
    tokio::pin!(answer_operators);
    if args.operators.is_given() {
        answer_operators.as_mut().await?;
    }
    let connections = Connections::default();
    let serving = gateway::start(gateway.clone(), listener, connections.clone(), stop.clone());
    let reaching = Box::pin(async {
        tokio::try_join!(
            reach_database(&config, &gateway, &stop, &give_up),
            reach_broker(&config.broker, &gateway, &give_up),
        )
    });
    if let Some(reached) = stop.run_until_cancelled(reaching).await {
        reached?;
        // A worker that starts on this machine at the same time may have the default address.
        if !args.operators.is_given() {
            answer_operators.await?;
        }
        tracing::info!("ready");
    }
    let _ = serving.ended().await;
    finish(&gateway, &connections, grace).await;
    give_up.cancel();
    tracing::info!("stopped");
    Ok(())
}

/// Waits for what is in hand. Before the grace ends, what still waits is answered: an invite with 504, and it goes on.
async fn finish(gateway: &Gateway, connections: &Connections, grace: Duration) {
    let done = async {
        connections.closed().await;
        gateway.idle().await;
    };
    tokio::pin!(done);
    let for_answers = ANSWERS_WITHIN.min(grace / 4);
    if tokio::time::timeout(grace.saturating_sub(for_answers), &mut done).await.is_ok() {
        return;
    }
    tracing::warn!("the grace is over; invites whose replies are not there yet go on");
    gateway.last_call();
    let _ = tokio::time::timeout(for_answers + LEAVES_WITHIN, done).await;
}

/// Answers on HTTP_ADDR. Where that is taken, the gateway goes on without it: a worker on this machine may well have it, as
/// the two of them mostly share their settings. Another fault of an address that was set is an error.
async fn answer_operators(
    gateway: &Arc<Gateway>,
    args: &GatewayArgs,
    until: &CancellationToken,
) -> anyhow::Result<()> {
    let addr = gateway.config.http_addr;
    let answering = health::serve(gateway::operators(gateway.clone()), addr, until.clone()).await;
    let Err(error) = answering else { return Ok(()) };
    let is_given = args.operators.is_given();
    let is_taken = error.kind() == io::ErrorKind::AddrInUse;
    let what = format!("{addr} cannot be listened on ({error})");
    anyhow::ensure!(!is_given || is_taken, "HTTP_ADDR: {what}; set another address or port");
    let what = format!(
        "the gateway has no /metrics: {what}. A worker on this machine may have that address: set another HTTP_ADDR for \
         the gateway, such as --http-addr 127.0.0.1:9465"
    );
    tracing::warn!("{what}");
    if is_given {
        gateway.has_no_metrics(what);
    }
    Ok(())
}

/// Connects, however long the database or its schema is away, and reads the groups.
async fn reach_database(
    config: &GatewayConfig,
    gateway: &Gateway,
    stop: &CancellationToken,
    give_up: &CancellationToken,
) -> anyhow::Result<()> {
    let opened =
        db::open(&config.database, "session-invite gateway", db::Client::Gateway, &gateway.database).await?;
    let pool = opened.keep_watching(give_up.clone());
    let (secrets, links) = (config.secrets_key.clone(), config.public_url.base.clone());
    let open = || Directory::open(pool.clone(), secrets.clone(), links.clone());
    let directory = match persist(&kinds::READ_GROUPS, stop, open).await {
        Err(Trouble::Stopping) => return Ok(()),
        opened => Arc::new(opened?),
    };
    let open = || OptOuts::open(pool.clone(), &config.secrets_key);
    let optouts = match persist(&kinds::READ_OPTOUT_KEY, stop, open).await {
        Err(Trouble::Stopping) => return Ok(()),
        opened => opened?,
    };
    directory.keep_following(give_up.clone());
    gateway.has_services(Services {
        authenticator: Authenticator::new(directory.clone(), give_up.clone()),
        guesses: Guesses::new(pool.clone()),
        optouts,
        directory,
        pool,
    });
    Ok(())
}

/// Connects, however long the broker is away or no worker has declared the queue: the gateway declares nothing. An error
/// is one that no waiting mends.
async fn reach_broker(
    config: &BrokerConfig,
    gateway: &Gateway,
    give_up: &CancellationToken,
) -> anyhow::Result<()> {
    gateway.has_asking(Asking::start(config.clone(), give_up.clone()));
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut told = false;
    while let Err(error) = queue::look_for_requests(config).await {
        if !error.passes() {
            return Err(error.into());
        }
        if !told {
            told = true;
            tracing::warn!(%error, "waiting for the broker");
        }
        backoff.wait().await;
    }
    Ok(())
}
