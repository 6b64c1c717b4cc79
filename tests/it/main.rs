//! The worker by its front door: a real process between a real broker, a real database and the sandbox.
//!
//! Each test has a database, queues and a provider of its own ([`support::World`]), so that all run side by side.
//! Modules follow the contract's sections.

mod age;
mod cli;
mod crash;
mod credentials;
mod dead;
mod doctor;
mod events;
mod gateway;
mod gateway_clients;
mod gateway_crash;
mod gateway_docs;
mod gateway_lines;
mod gateway_sessions;
mod gateway_waits;
mod groups;
mod growth;
mod happy;
mod hostile;
mod idempotency;
mod limits;
mod looks;
mod neighbours;
mod observe;
mod optouts;
mod outage;
mod pasted;
mod provider;
mod receipts;
mod refusing;
mod replies;
mod request;
mod retention;
mod retries;
mod rights;
mod sessions;
mod set_aside;
mod settings;
mod shutdown;
mod startup;
mod states;
mod support;
mod tasks;
mod topology;
mod undecodable;
mod visitor;
