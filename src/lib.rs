//! Session Invite: an invite from RabbitMQ becomes a session, a text and a reply, once each.
//!
//! In the order in which an invite meets them:
//!
//! - [`queue`]: deliveries in, verdicts out; the only acknowledgement.
//! - [`invite`]: the way of one invite, top to bottom, in [`invite::process()`].
//! - [`credential`], [`group`], [`phone`]: who asks, for whom, and whom to text.
//! - [`sessions`]: the table, as verbs.
//! - [`sms`]: the provider.
//! - [`gateway`]: the HTTP request, by way of the queue; look-ups, and what visitors open.
//!
//! Around it: [`config`] (the only reader of the environment), [`commands`] (one file each). What the provider defines is a
//! crate of its own (`crates/sms-provider`), and so is the sandbox, which stands in for the provider (`crates/sms-sandbox`).
//!
//! Dependencies point one way, from the left to the right, and `tests/arrows.rs` holds them to it:
//!
//! ```text
//! main → cli → commands → gateway, doctor → health → queue → invite → sessions, limits
//!      → group, optouts, sms, suspects → credential, db, http → supervise, config → leaves
//! ```
//!
//! The leaves know no other module: a group's id, a phone number, a refusal, a trace context, a text, waiting, metrics.

// Tests spawn as they like.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod backoff;
pub mod cli;
pub mod commands;
pub mod config;
pub mod credential;
pub mod db;
pub mod doctor;
pub mod failpoint;
pub mod gateway;
pub mod group;
pub mod group_id;
pub mod health;
pub mod hmac_key;
mod http;
pub mod invite;
mod json;
pub mod limits;
mod masked;
pub mod metrics;
pub mod optouts;
pub mod output;
mod pasted;
pub mod phone;
pub mod queue;
pub mod rate_limit;
pub mod refusal;
pub mod seal;
mod seldom;
pub mod session_key;
pub mod sessions;
pub mod shutdown;
pub mod sms;
pub mod sms_text;
pub mod supervise;
pub mod suspects;
pub mod telemetry;
pub mod traceparent;
pub mod trouble;
