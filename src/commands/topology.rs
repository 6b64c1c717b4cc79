//! `session-invite topology`: declares the queues without a worker, or deletes those of a demo or a test.

use crate::{
    config::BrokerArgs,
    queue::{self, Names},
};

const EXAMPLES: &str = "\
Examples:
  As a broker user who may declare queues, for workers whose user may not:
    session-invite topology declare --amqp-url amqp://admin:password@127.0.0.1:5672/%2f

  Away with the queues of a test, and all that is in them:
    session-invite topology delete --queue-prefix test";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum Action {
    /// Declare every queue
    Declare,
    /// Delete every queue, with all that is in them
    Delete,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let config = super::broker(&args.broker)?;
    let names = Names::new(&config.queue_prefix);
    let connection = queue::connect(&config, "topology").await?;
    match args.action {
        Action::Declare => queue::declare(&connection, &names).await?,
        Action::Delete => queue::delete(&connection, &names).await?,
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
