//! How full the queues are, for `/metrics` and the console: what the broker says when a queue is declared passively.
//!
//! AMQP does not tell how old a queue's first message is, and to take it would count a delivery. But the requests queue is
//! delivered in its order. So whatever waits in it is younger than the newest message that was delivered, and than the last
//! moment at which the queue was empty.

use super::{
    QueueNames,
    connection::{BrokerConnection, BrokerError, connect_to_some_node},
    metrics,
    watch::ConsumerHealth,
};
use crate::config::BrokerConfig;
use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};

/// Reads how full the queues are, on a connection of its own.
#[derive(Debug)]
pub(crate) struct QueueDepths {
    config: BrokerConfig,
    names: QueueNames,
    open: Option<BrokerConnection>,
}

/// How full one queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueDepth {
    /// The end of its name.
    pub(crate) queue: &'static str,
    pub(crate) messages: u32,
    pub(crate) consumers: u32,
}

impl QueueDepths {
    pub(crate) fn new(config: BrokerConfig) -> Self {
        let names = QueueNames::new(&config.queue_prefix);
        Self { config, names, open: None }
    }

    /// Measures every queue for `/metrics`. `requests` is what the consumer of requests knows of their age.
    pub(crate) async fn measure(&mut self, requests: &ConsumerHealth) -> Result<(), BrokerError> {
        for QueueDepth { queue, messages, consumers } in self.read().await? {
            metrics::queue_measured(queue, messages, consumers);
            if queue == metrics::REQUESTS {
                metrics::oldest_request(requests.oldest_message(messages));
            }
        }
        Ok(())
    }

    /// Reads every queue, and leaves out those that are missing. If this is dropped or fails, the next call opens another
    /// connection.
    pub(crate) async fn read(&mut self) -> Result<Vec<QueueDepth>, BrokerError> {
        let open = match self.open.take().filter(|open| open.connection.status().connected()) {
            Some(open) => open,
            None => connect_to_some_node(&self.config, "measurements").await?,
        };
        let mut channel = open.connection.create_channel().await?;
        let mut depths = Vec::new();
        for (label, queue) in self.names.measured() {
            match depth(&channel, queue).await {
                Ok((messages, consumers)) => depths.push(QueueDepth { queue: label, messages, consumers }),
                // The queue is missing, and the error has closed the channel.
                Err(_) if open.connection.status().connected() => {
                    channel = open.connection.create_channel().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let _ = channel.close(200, "done".into()).await;
        self.open = Some(open);
        Ok(depths)
    }
}

async fn depth(channel: &Channel, queue: &str) -> Result<(u32, u32), lapin::Error> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let state = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
    Ok((state.message_count(), state.consumer_count()))
}
