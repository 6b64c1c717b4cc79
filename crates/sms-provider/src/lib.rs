//! The rules of the SMS provider. The program relies on them, and the sandbox follows them.

// Tests may spawn tasks directly.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod codes;
pub mod segments;
pub mod signature;
