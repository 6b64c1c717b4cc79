//! The database: connecting, what its errors mean, and whether a process can do there what it needs.

mod client;
mod cluster;
mod error;
pub(crate) mod kinds;
pub(crate) mod metrics;
mod node_states;
mod nodes;
mod open;
mod persist;
mod probe;
mod reading;
mod retire;
mod schema;
mod sqlstate;
mod transaction;
mod watch;

pub(crate) use client::DatabaseClient;
pub(crate) use cluster::TIMELINE;
pub(crate) use error::{StatementError, UnusableDatabase, action};
pub(crate) use node_states::{CLOCK_WARNING, NodeLook, several_writers};
pub(crate) use nodes::pings;
pub(crate) use open::{connect, has_schema, look_at_nodes, open};
pub(crate) use persist::{Patience, persist, repeat};
pub(crate) use probe::{Locks, Obstacle, lock_holders, obstacles};
pub(crate) use reading::{AWAY_AFTER, NotRead, PAGE_LIMIT, SharedReading, read_within};
pub(crate) use retire::{retirements, with_time_limit};
pub(crate) use schema::{MIGRATIONS, Schema, migrate};
pub(crate) use sqlstate::ErrorAction;
pub(crate) use transaction::{begin, begin_with};
pub(crate) use watch::Watch;

pub(crate) use sqlx::{Error, PgConnection as Connection, PgPool as Pool};
