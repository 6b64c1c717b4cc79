//! The provider: handing it a text, what its answer means, and looking for a text whose answer was lost.

mod answer;
mod client;
mod lines;
mod list;
mod written;

pub use answer::{Answer, Later};
pub use client::{Place, Sms, Text};
pub use list::{LookFailed, Wanted};

/// What the fuzzing targets call (docs/FUZZING.md).
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use super::{answer::read, list::page};
}
