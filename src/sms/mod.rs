//! The provider: handing it a text, and what its answer means.

mod answer;
mod client;

pub use answer::{Answer, Later};
pub use client::{Place, Sms, Text};
