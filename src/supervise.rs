//! Tasks that do not end in silence (contract, section 8, promise 8).
//!
//! Every task of a process is started here, in one of three ways, and clippy.toml forbids the others:
//!
//! - [`keep_up`]: a task that lives as long as the process. When it ends unasked, the log names it, and it starts again.
//! - [`part_of`]: a task of one connection. When it ends, the connection ends too, and its owner opens another.
//! - [`aside`]: a piece of work beside its requester, who notices its end.
//!
//! Each task of the first two kinds reports its steps through a [`Pulse`]. [`problems`] names those that make none.

mod keep;
pub mod metrics;
mod pulse;
mod runtime;
mod task;

pub use keep::{Kept, aside, aside_in, keep_up, keep_up_unless, part_of};
pub use pulse::{Pulse, problems};
pub use runtime::watch as watch_runtime;
pub use task::{Process, Task};

#[cfg(test)]
mod tests;
