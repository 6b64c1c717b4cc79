//! The database: connecting, what an error from it means, and whether what a process needs of it can be done.

mod client;
mod error;
pub mod kinds;
mod leave;
mod open;
mod persist;
mod probe;
mod reach;
mod schema;
mod sqlstate;
mod transaction;
mod watch;

pub use client::Client;
pub use error::{Passing, Unusable, action, may_hide_a_commit};
pub use leave::{answered, leaving};
pub use open::{Opened, connect, has_schema, open};
pub use persist::{Patience, persist, repeat};
pub use probe::{HELD_FOR, Locks, Obstacle, obstacles};
pub use reach::{pings, why_no_connection};
pub use schema::{MIGRATIONS, Schema, migrate};
pub use sqlstate::Action;
pub use transaction::{begin, begin_with};
pub use watch::Watch;

pub use sqlx::{Error, PgPool as Pool};
