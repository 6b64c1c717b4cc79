//! Limits that hold across workers and gateways, as token buckets in Postgres (docs/LIMITS.md).

mod buckets;
mod guesses;

pub use guesses::Guesses;
