//! Sessions: searching them, and one of them with its story.

mod list;
mod reading;
mod search;
mod show;

pub(super) use list::list;
pub(super) use show::show;
