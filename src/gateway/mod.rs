//! The gateway: the HTTP request that invites replace, by way of the queue; look-ups for agents; what visitors open; and
//! the provider's webhooks (contract, section 13).
//!
//! `server` has the connections, `front` what all requests have in common, and the rest is a file for each subject.

mod agents;
mod as_asked;
mod body;
mod caller;
mod client;
mod docs;
mod front;
mod health;
mod host;
mod invite;
pub mod metrics;
mod misses;
mod openapi;
mod page;
mod problem;
mod query;
mod router;
pub mod routes;
mod server;
mod state;
mod visitor;
mod webhooks;

pub use as_asked::AsAsked;
pub use body::Content;
pub use client::ClientAddress;
pub use openapi::document;
pub use page::{escape, page};
pub use problem::{Own, Problem};
pub use router::operators;
pub use server::{listen, start};
pub use state::{Gateway, Services};

/// What the fuzzing targets call (docs/FUZZING.md).
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::{
        visitor::written_token,
        webhooks::{decoded, form},
    };
}
