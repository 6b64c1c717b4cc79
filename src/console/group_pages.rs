//! Groups: the list, one group, and what can be done with it.

mod change;
mod list;
mod show;
mod state_words;

pub(super) use change::{change, confirm};
pub(super) use list::list;
pub(super) use show::show;
