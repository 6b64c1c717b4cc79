//! Session Invite: an invite from RabbitMQ becomes a session, a text and a reply, once each.

pub mod commands;
pub mod group;
pub mod phone;
pub mod refusal;
pub mod sandbox;
