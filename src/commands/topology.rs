//! `session-invite topology`: declares the queues without a worker, or deletes the queues of a demo or a test.

use crate::{
    config::BrokerArgs,
    queue::{self, QueueNames},
};

const EXAMPLES: &str = "\
Examples:
  As a broker user who may declare queues, for workers whose user may not:
    session-invite topology declare --amqp-url amqp://admin:password@127.0.0.1:5672/%2f

  Delete the queues of a test, with all that is in them:
    session-invite topology delete --queue-prefix test";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TopologyArgs {
    #[command(subcommand)]
    command: TopologyCommand,
    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum TopologyCommand {
    /// Declare every queue
    Declare,
    /// Delete every queue, with all that is in them
    Delete,
}

pub(crate) async fn run(args: TopologyArgs) -> anyhow::Result<()> {
    let config = super::broker(&args.broker)?;
    let names = QueueNames::new(&config.queue_prefix);
    let work = async |open: &queue::BrokerConnection| match args.command {
        TopologyCommand::Declare => queue::declare(&open.connection, &names).await,
        TopologyCommand::Delete => queue::delete(&open.connection, &names).await,
    };
    let (open, ()) = queue::on_answering_node(&config, "topology", work).await?;
    queue::close_connection(&open.connection).await;
    Ok(())
}
