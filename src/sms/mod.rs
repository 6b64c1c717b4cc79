//! The provider: handing it a text, and what its answer means.

mod answer;
mod client;
pub mod segments;

pub use answer::{Answer, Later};
pub use client::{Place, Sms, Text};
