//! What the SMS provider defines. The program relies on it, and the sandbox does as the provider would.

// Tests spawn as they like.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod codes;
pub mod segments;
pub mod signature;
