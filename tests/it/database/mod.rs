//! The database: its faults, and its size.

mod faults;
mod growth;
mod losses;
mod nodes;
