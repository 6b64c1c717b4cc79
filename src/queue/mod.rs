//! The broker: what the queues are called, consuming from them, and publishing with confirms.

mod ack;
mod allowance;
mod ask;
mod cause;
mod connection;
mod consume;
pub mod dead;
mod delivery;
mod direct;
mod events;
mod message;
pub mod metrics;
mod publish;
mod replies;
mod reply_to;
mod request;
mod returns;
mod settle;
mod topology;
mod watch;
mod wire;
mod work;

pub use ask::{AskError, Asking};
pub use cause::Cause;
pub use connection::{Right, Unusable, connect, connect_and_ask, connect_to};
pub use consume::{Consumer, Source};
pub use direct::DirectReplies;
pub use events::Events;
pub use publish::{Name, Outgoing, Published, Publisher};
pub use returns::is_limited;
pub use topology::{Names, QueueState, Standing, declare, delete, look, look_for_requests};
pub use watch::Consuming;
pub use wire::Server;

/// What the fuzzing targets call (docs/FUZZING.md).
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::wire::{properties, screened};
}
