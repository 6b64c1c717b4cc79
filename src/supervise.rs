//! Tasks whose end is always noticed (contract, section 8, promise 8).
//!
//! Every task of a process is started here, in one of three ways; clippy.toml forbids the others:
//!
//! - [`keep_running`]: a task that lives as long as the process. If it ends unexpectedly, that is logged, and it is restarted.
//! - [`spawn_for_connection`]: a task of one connection. When it ends, the connection is closed, and its owner opens another.
//! - [`spawn_work`]: work beside the task that requests it, which notices the end.
//!
//! Each task of the first two kinds reports its steps through a [`Pulse`]. [`problems`] lists those that are stuck.

mod keep;
pub(crate) mod metrics;
mod pulse;
mod runtime;
mod task;

pub(crate) use keep::{
    TaskHandle, keep_running, keep_running_unless_fatal, spawn_for_connection, spawn_work, spawn_work_in,
};
pub(crate) use pulse::{Pulse, problems};
pub(crate) use runtime::watch as watch_runtime;
pub use task::{Process, Task};

#[cfg(test)]
mod tests;
