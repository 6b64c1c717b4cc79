//! The gateway: the HTTP request that invites replace, by way of the queue; look-ups for agents; what visitors open; and
//! the provider's webhooks (contract, section 13).
//!
//! `server` has the connections, `front` what all requests have in common, and the rest is a file for each subject.

mod agents;
mod body;
mod caller;
mod client;
mod docs;
mod front;
mod health;
mod host;
mod invite;
pub(crate) mod metrics;
mod miss_limit;
mod openapi;
mod page;
mod problem;
mod query;
mod refused_receipts;
mod request_target;
mod router;
pub mod routes;
mod server;
mod state;
mod visitor;
mod webhooks;

pub(crate) use body::RequestBody;
pub(crate) use client::{ClientAddress, RequestSender, SIGHTED};
pub(crate) use miss_limit::MissLimit;
pub use openapi::document;
pub(crate) use problem::GatewayCode;
pub(crate) use request_target::RequestTarget;
pub(crate) use router::operators;
pub(crate) use server::{listen, start};
pub(crate) use state::{Gateway, Services};

/// The functions that the fuzzing targets call (docs/FUZZING.md).
#[doc(hidden)]
pub mod fuzzing {
    pub use super::webhooks::form;
    use super::{visitor, webhooks};
    use crate::session_key::Token;

    /// The token of a visitor's link.
    pub fn written_token(text: &str) -> Option<Token> {
        visitor::written_token(text)
    }

    /// Names and values of a webhook's form, as bytes.
    pub fn decoded(body: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        webhooks::decoded(body)
    }
}
