//! The broker: the names of the queues, consuming from them, and publishing with confirms.

mod ack;
mod allowance;
mod backlog;
mod cause;
mod connection;
mod consume;
pub(crate) mod dead;
mod delivery;
mod depths;
mod direct;
mod events;
mod marker;
mod message;
pub(crate) mod metrics;
mod node_looks;
mod nodes;
mod publish;
mod replies;
mod reply_to;
mod request;
mod resume;
mod returns;
mod rpc;
mod settle;
mod topology;
mod watch;
mod wire;
mod work;

pub(crate) use cause::Cause;
pub use connection::connect_to_node;
pub(crate) use connection::{BrokerConnection, BrokerError, close_connection, connect, on_answering_node};
pub(crate) use consume::{ConsumedQueue, Consumer};
pub(crate) use depths::{QueueDepth, QueueDepths};
pub(crate) use direct::DirectReplies;
pub(crate) use events::EventPublisher;
pub(crate) use marker::MarkerKeeper;
pub(crate) use node_looks::{BrokerNodeLook, keep_looking_at_nodes, look_at_broker_nodes};
pub(crate) use nodes::{broker_node_problems, broker_nodes};
pub(crate) use publish::{Outgoing, Publisher, publishers_held_back};
pub(crate) use resume::resume;
pub(crate) use returns::is_limited;
pub(crate) use rpc::{RpcClient, RpcError};
pub use topology::QueueNames;
pub(crate) use topology::{QueueReport, QueueState, check_requests_queue, declare, delete, inspect};
pub(crate) use watch::ConsumerHealth;
pub use wire::BrokerVersion;

/// What the fuzzing targets call (docs/FUZZING.md).
#[doc(hidden)]
pub mod fuzzing {
    use super::wire;
    pub use super::wire::properties;

    /// The bytes that lapin reads when these bytes come in pieces of at most `piece`.
    ///
    /// # Errors
    ///
    /// The stream is not AMQP's.
    pub fn screened(bytes: &[u8], piece: usize) -> std::io::Result<Vec<u8>> {
        wire::screened(bytes, piece)
    }
}
