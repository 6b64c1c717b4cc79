//! The worker and the gateway by their front doors: real processes between a real broker, a real database and the sandbox.
//!
//! Each test has a database, queues and a provider of its own ([`support::World`]), so that all run side by side.
//! docs/TESTING.md says which folder has which tests.

#![allow(unreachable_pub, reason = "a test has no users")]

mod broker;
mod console;
mod database;
mod gateway;
mod invite;
mod operators;
mod provider;
mod sessions;
mod support;
mod worker;
