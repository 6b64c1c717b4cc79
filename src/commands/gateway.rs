//! `session-invite gateway`: the HTTP front of the queue. Wiring only.

use super::worker::{keep_metrics_tidy, wait_for_database};
use crate::{
    backoff::Backoff,
    config::{BrokerConfig, GatewayArgs, GatewayConfig},
    credential::Authenticator,
    gateway::{self, Connections, Gateway, Services},
    group::directory::Directory,
    limits::Guesses,
    metrics,
    optouts::OptOuts,
    queue::{self, Asking},
    shutdown, supervise,
    trouble::{Trouble, persist},
};
use anyhow::Context;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Runs until a signal; an error is one that no waiting mends.
pub async fn run(args: &GatewayArgs) -> anyhow::Result<()> {
    let config = args.check()?;
    // Two steps to a stop: no new requests, and, when the grace is over, no waiting for replies.
    let (stop, give_up) = (shutdown::on_signal()?, CancellationToken::new());
    supervise::watch_runtime()?;
    let metrics = metrics::start()?;
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
    let connections = Connections::default();
    let serving = gateway::start(gateway.clone(), listener, connections.clone(), stop.clone());
    let reaching = async {
        tokio::try_join!(
            reach_database(&config, &gateway, &stop, &give_up),
            reach_broker(&config.broker, &gateway, &give_up),
        )
    };
    if let Some(reached) = stop.run_until_cancelled(reaching).await {
        reached?;
        tracing::info!("ready");
    }
    let _ = serving.ended().await;
    if tokio::time::timeout(grace, connections.closed()).await.is_err() {
        tracing::warn!("the grace is over; invites whose replies are not there yet go on");
    }
    give_up.cancel();
    tracing::info!("stopped");
    Ok(())
}

/// Connects and migrates, however long the database is away, and reads the groups.
async fn reach_database(
    config: &GatewayConfig,
    gateway: &Gateway,
    stop: &CancellationToken,
    give_up: &CancellationToken,
) -> anyhow::Result<()> {
    let pool = wait_for_database(&config.database, "session-invite gateway").await?;
    let (secrets, links) = (config.secrets_key.clone(), config.public_url.base.clone());
    let open = || Directory::open(pool.clone(), secrets.clone(), links.clone());
    let directory = match persist("read the groups", stop, open).await {
        Err(Trouble::Stopping) => return Ok(()),
        opened => Arc::new(opened?),
    };
    let open = || OptOuts::open(pool.clone(), &config.secrets_key);
    let optouts = match persist("read the key of the opt-outs", stop, open).await {
        Err(Trouble::Stopping) => return Ok(()),
        opened => opened?,
    };
    directory.keep_following(give_up.clone());
    gateway.has_services(Services {
        authenticator: Authenticator::new(directory.clone(), pool.clone(), give_up.clone()),
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
