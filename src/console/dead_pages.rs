//! The dead letters: the first of them, one of them, and replaying and dropping it.

mod change;
mod list;
mod show;

pub(super) use change::{change, confirm};
pub(super) use list::list;
pub(super) use show::show;
