//! The commands, one a file: each wires arguments to what does the work.

pub mod addresses;
pub mod groups;
mod secret_input;
pub mod tokens;
