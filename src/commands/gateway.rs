//! `session-invite gateway`: the HTTP front of the queue. Wiring only.

use crate::{
    backoff::Backoff,
    config::{BrokerConfig, GatewayArgs, GatewayConfig, PublicUrl},
    console,
    db::{self, kinds, persist},
    gateway::{self, Gateway, Services},
    group::directory::Directory,
    health,
    http::OpenConnections,
    invite::Authenticator,
    limits::Guesses,
    metrics::ShownBy,
    optouts::OptOuts,
    processes::{Heartbeat, Identity},
    queue::{self, RpcClient},
    sessions::PausedGroups,
    shutdown,
    supervise::{self, TaskHandle},
    trouble::Trouble,
};
use anyhow::Context;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How long before the end of `SHUTDOWN_GRACE` the requests that wait are answered. Of a short grace it is a quarter.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);
/// How long after the grace the last answers may be written.
const WRITES_WITHIN: Duration = Duration::from_secs(1);

/// Runs until a signal. It returns only errors that do not pass by waiting.
pub(crate) async fn run(args: &GatewayArgs) -> anyhow::Result<()> {
    let config = args.check()?;
    // Two steps to a stop: no new requests, then, when the grace is over, no waiting for replies.
    let (stop, give_up) = (shutdown::on_signal()?, CancellationToken::new());
    supervise::watch_runtime()?;
    let metrics = super::start_metrics(ShownBy::Gateway)?;
    super::keep_metrics_tidy(metrics.clone());
    let addr = config.http.addr;
    let listener = gateway::listen(addr)
        .with_context(|| format!("GATEWAY_ADDR: cannot listen on {addr}; set another address or port"))?;
    let local = listener.local_addr()?;
    tracing::info!(addr = %local, "answering");
    if config.twilio_auth_token.is_none() {
        tracing::warn!("TWILIO_AUTH_TOKEN is not set: the provider's webhooks are refused");
    }
    let grace = config.shutdown_grace;
    let gateway = Arc::new(Gateway::new(config.clone(), metrics, stop.clone()));
    queue::keep_looking_at_nodes(&config.broker, give_up.clone());
    let answer_operators = answer_operators(&gateway, args, &give_up);
    tokio::pin!(answer_operators);
    if args.operators.is_given() {
        answer_operators.as_mut().await?;
    }
    let (connections, heartbeat) = (OpenConnections::default(), OnceLock::new());
    let console = console::router(&gateway);
    if console.is_some() {
        log_console_address(&config.public_url, local);
    }
    let serving = gateway::start(gateway.clone(), listener, console, connections.clone(), stop.clone());
    let reaching = Box::pin(async {
        tokio::try_join!(
            reach_database(&config, &gateway, &heartbeat, &stop, &give_up),
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
    if let Some(heartbeat) = heartbeat.into_inner() {
        // Its row is deleted within this.
        let _ = tokio::time::timeout(WRITES_WITHIN, heartbeat.ended()).await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Logs where the console can be opened: on this machine surely, and by `PUBLIC_URL` only if that leads to this gateway.
fn log_console_address(public_url: &PublicUrl, local: SocketAddr) {
    let here = match local.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, local.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, local.port())),
        _ => local,
    };
    if public_url.callbacks {
        let public = &public_url.base;
        tracing::info!(
            "the console is at http://{here}/console on this machine, and at {public}/console if PUBLIC_URL leads to this gateway"
        );
    } else {
        tracing::info!("the console is at http://{here}/console on this machine");
    }
}

/// Waits for requests in flight. Before the grace ends, those that still wait are answered: an invite with 504, and the
/// invite continues.
async fn finish(gateway: &Gateway, connections: &OpenConnections, grace: Duration) {
    let done = async {
        connections.closed().await;
        gateway.idle().await;
    };
    tokio::pin!(done);
    let for_answers = ANSWERS_WITHIN.min(grace / 4);
    if tokio::time::timeout(grace.saturating_sub(for_answers), &mut done).await.is_ok() {
        return;
    }
    tracing::warn!(
        "SHUTDOWN_GRACE is nearly over; requests that wait are answered, and their invites continue"
    );
    gateway.last_call();
    let _ = tokio::time::timeout(for_answers + WRITES_WITHIN, done).await;
}

/// Serves `/metrics` and health on HTTP_ADDR. Where that is in use, the gateway continues without: a worker on this machine
/// may have it, as both mostly share their settings. Another fault of an address that was set is an error.
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
    let what = format!("cannot listen on {addr} ({error})");
    anyhow::ensure!(!is_given || is_taken, "HTTP_ADDR: {what}; set another address or port");
    let what = format!(
        "the gateway has no /metrics: {what}. A worker on this machine may have that address: set another HTTP_ADDR for \
         the gateway, such as --http-addr 127.0.0.1:9465"
    );
    tracing::warn!("{what}");
    if is_given {
        gateway.set_metrics_problem(what);
    }
    Ok(())
}

/// Connects and reads the groups. It waits as long as the database or its schema is away.
async fn reach_database(
    config: &GatewayConfig,
    gateway: &Arc<Gateway>,
    heartbeat: &OnceLock<TaskHandle>,
    stop: &CancellationToken,
    give_up: &CancellationToken,
) -> anyhow::Result<()> {
    let opened =
        db::open(&config.database, "session-invite gateway", db::DatabaseClient::Gateway, &gateway.database)
            .await?;
    let pool = opened.keep_watching(give_up.clone());
    let reporter = Heartbeat {
        pool: pool.clone(),
        identity: Identity::of_gateway(config),
        neighbours: gateway.neighbours.clone(),
    };
    let reporting = gateway.clone();
    let _ = heartbeat.set(reporter.start(move || reporting.self_report(), give_up.clone()));
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
    super::name_busiest_groups(&pool).await;
    gateway.set_services(Services {
        authenticator: Authenticator::new(directory.clone(), give_up.clone()),
        guesses: Guesses::new(pool.clone()),
        optouts,
        paused: PausedGroups::new(pool.clone(), directory.clone()),
        directory,
        pool,
    });
    Ok(())
}

/// Connects. It waits as long as the broker is away or no worker has declared the queue: the gateway declares nothing. It
/// returns only errors that do not pass by waiting.
async fn reach_broker(
    config: &BrokerConfig,
    gateway: &Gateway,
    give_up: &CancellationToken,
) -> anyhow::Result<()> {
    gateway.set_rpc(RpcClient::start(config.clone(), give_up.clone()));
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut warned = false;
    while let Err(error) = queue::check_requests_queue(config).await {
        if !error.is_temporary() {
            return Err(error.into());
        }
        if !warned {
            warned = true;
            tracing::warn!(%error, "waiting for the broker");
        }
        backoff.wait().await;
    }
    Ok(())
}
