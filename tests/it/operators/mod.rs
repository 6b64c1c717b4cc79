//! What operators see and change: settings, commands and metrics.

mod audit;
mod cli;
pub mod dead;
mod doctor;
mod faults;
mod forget;
mod groups;
mod logs;
mod metrics;
mod pause;
mod problems;
mod processes;
mod queries;
mod questions;
mod reconcile;
mod rights;
mod settings;
mod trace;
mod traces;
