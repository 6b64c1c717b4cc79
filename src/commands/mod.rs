//! One subcommand a file; wiring only.

pub(crate) mod addresses;
pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod dead;
pub(crate) mod doctor;
pub(crate) mod gateway;
pub(crate) mod groups;
mod lock_notice;
pub(crate) mod migrate;
pub(crate) mod optouts;
pub(crate) mod ready;
pub(crate) mod reconcile;
pub(crate) mod retention;
mod secret_input;
pub(crate) mod secrets;
pub(crate) mod send;
pub(crate) mod sessions;
pub(crate) mod sms_sandbox;
pub(crate) mod tokens;
pub(crate) mod topology;
pub(crate) mod trace;
pub(crate) mod worker;

use crate::{
    audit::Operator,
    config::{BrokerArgs, BrokerConfig, DatabaseArgs, Faults, ReplyToAllow},
    db, health, invite, limits, measurements,
    metrics::{
        self, Metric, ShownBy,
        groups::{NAMED_AT_MOST, label},
    },
    queue, sms, spans,
    supervise::{self, Task, keep_running},
};
use metrics_exporter_prometheus::{BuildError, PrometheusHandle};
use sqlx::PgPool;
use std::{fmt, time::Duration};
use tokio_util::sync::CancellationToken;

/// An argument that only the command itself can read, such as a phone number, and that is wrong: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongUsage(String);

impl WrongUsage {
    pub(crate) fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }

    /// Names the argument.
    pub(crate) fn of(argument: &str, why: &str) -> Self {
        Self(format!("{argument}: {why}"))
    }
}

const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// How long the start may wait to know the busiest groups.
const BUSIEST_KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// The metrics of all modules.
const METRICS: [&[Metric]; 11] = [
    queue::metrics::METRICS,
    invite::metrics::METRICS,
    crate::sessions::metrics::METRICS,
    limits::metrics::METRICS,
    crate::gateway::metrics::METRICS,
    supervise::metrics::METRICS,
    sms::metrics::METRICS,
    db::metrics::METRICS,
    measurements::METRICS,
    health::METRICS,
    spans::metrics::METRICS,
];

/// Starts the metrics recorder, for one of the two processes that run until a signal.
pub(crate) fn start_metrics(process: ShownBy) -> Result<PrometheusHandle, BuildError> {
    metrics::start(&METRICS, process)
}

/// Gives the busiest groups series of their own, before invites come. Where there are few groups, the directory has named all
/// of them.
pub(crate) async fn name_busiest_groups(pool: &PgPool) {
    let most = i64::try_from(NAMED_AT_MOST).unwrap_or(i64::MAX);
    // Without an answer, the first groups that come get the places.
    let busiest =
        tokio::time::timeout(BUSIEST_KNOWN_WITHIN, crate::sessions::busiest_groups(pool, most)).await;
    for group in busiest.into_iter().flatten().flatten() {
        label(group.get());
    }
    crate::sessions::metrics::show_groups();
}

/// Keeps what `/metrics` shows of this process up to date. It also gathers recorded values, so that they do not fill the memory
/// of a process whose `/metrics` is not read.
pub(crate) fn keep_metrics_tidy(metrics: PrometheusHandle) {
    keep_running(Task::MetricsUpkeep, CancellationToken::new(), move |pulse| {
        let metrics = metrics.clone();
        async move {
            loop {
                pulse.step("gathering recorded metrics");
                crate::sessions::metrics::show_groups();
                db::metrics::update();
                metrics.run_upkeep();
                pulse.idle();
                tokio::time::sleep(UPKEEP_EVERY).await;
            }
        }
    });
}

/// A pool for one command.
pub(crate) async fn connect(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let mut faults = Faults::default();
    let config = args.check(&mut faults);
    let pool = db::connect(&faults.finish(config)?, "session-invite").await?;
    lock_notice::start(pool.clone());
    Ok(pool)
}

/// A pool for a command that needs the schema.
pub(crate) async fn database(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let pool = connect(args).await?;
    anyhow::ensure!(
        db::has_schema(&pool).await?,
        "the database has no tables yet, or not those of this release; run `session-invite migrate`"
    );
    Ok(pool)
}

/// The way to the database for a command that changes something.
pub(crate) async fn operator(args: &DatabaseArgs) -> anyhow::Result<Operator> {
    Ok(Operator::new(database(args).await?))
}

/// The broker's configuration for one command.
pub(crate) fn broker(args: &BrokerArgs) -> anyhow::Result<BrokerConfig> {
    let mut faults = Faults::default();
    let config = args.check(&mut faults);
    Ok(faults.finish(config)?)
}

/// Where replies may go, for one command.
pub(crate) fn reply_to_allow(given: Option<&String>) -> anyhow::Result<ReplyToAllow> {
    let mut faults = Faults::default();
    let allow = faults.read("REPLY_TO_ALLOW", given, "*", ReplyToAllow::parse);
    Ok(faults.finish(allow)?)
}
