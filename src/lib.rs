//! Session Invite: an invite from RabbitMQ becomes a session, a text and a reply, once each.

pub mod commands;
pub mod credential;
pub mod group;
pub mod output;
pub mod phone;
pub mod refusal;
