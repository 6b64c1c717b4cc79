//! What several commands begin with: the program, the servers, a database and the sandbox.

use crate::{
    names::Names,
    output::step,
    postgres, program, rabbitmq,
    run::Run,
    services::{self, ServiceOptions},
    settings::{self, Settings},
};
use anyhow::{Error, Result};

/// Gives the settings of a worker and a gateway, which are not started yet.
pub(crate) fn prepare<E: Into<Error>>(
    run: &Run,
    names: &Names,
    servers: ServiceOptions,
    secrets_key: impl FnOnce() -> Result<String, E>,
) -> Result<Settings> {
    step("Build (minutes, the first time)", program::build)?;
    let services = step("PostgreSQL and RabbitMQ", || services::find(run, servers))?;
    let database = postgres::make_database(run, &services.postgres, &names.database)?;
    rabbitmq::note_queues(run, &services.rabbitmq, &names.queue_prefix)?;
    let sandbox = step("SMS provider: the sandbox", || settings::start_sandbox(run))?;
    let key = secrets_key().map_err(Into::into)?;
    Settings::new(&services, database, names.queue_prefix.clone(), key, sandbox)
}
