//! One subcommand a file; wiring only.

pub mod addresses;
pub mod completions;
pub mod dead;
pub mod doctor;
pub mod gateway;
pub mod groups;
pub mod migrate;
pub mod optouts;
pub mod ready;
mod secret_input;
pub mod secrets;
pub mod send;
pub mod sessions;
pub mod sms_sandbox;
pub mod tokens;
pub mod topology;
pub mod worker;

use crate::{
    config::{BrokerArgs, BrokerConfig, DatabaseArgs, Faults, ReplyToAllow},
    db, invite, limits,
    metrics::{self, Metric},
    queue, supervise,
};
use metrics_exporter_prometheus::{BuildError, PrometheusHandle};
use sqlx::PgPool;

/// The metrics of all modules.
const METRICS: [&[Metric]; 6] = [
    queue::metrics::METRICS,
    invite::metrics::METRICS,
    crate::sessions::metrics::METRICS,
    limits::metrics::METRICS,
    crate::gateway::metrics::METRICS,
    supervise::metrics::METRICS,
];

/// Starts counting, for the two processes that go on until a signal.
pub fn start_metrics() -> Result<PrometheusHandle, BuildError> {
    metrics::start(&METRICS)
}

/// A pool for one command, or one clear line why not.
pub async fn connect(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let mut faults = Faults::default();
    let config = args.check(&mut faults);
    Ok(db::connect(&faults.finish(config)?, "session-invite").await?)
}

/// The same, for a command that needs the schema to be there.
pub async fn database(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let pool = connect(args).await?;
    anyhow::ensure!(
        db::has_schema(&pool).await?,
        "the database has no tables yet; run `session-invite migrate`"
    );
    Ok(pool)
}

/// The broker's configuration for one command.
pub fn broker(args: &BrokerArgs) -> anyhow::Result<BrokerConfig> {
    let mut faults = Faults::default();
    let config = args.check(&mut faults);
    Ok(faults.finish(config)?)
}

/// Where replies may go, for one command.
pub fn reply_to_allow(given: Option<&String>) -> anyhow::Result<ReplyToAllow> {
    let mut faults = Faults::default();
    let allow = faults.read("REPLY_TO_ALLOW", given, "*", ReplyToAllow::parse);
    Ok(faults.finish(allow)?)
}
