//! The story of one invite: finding its session by whatever id an operator has, and what happened to it, in order and in words.
//! `session-invite trace` and the console show it.

mod entries;
mod fields;
mod search;
pub(crate) mod words;

pub(crate) use entries::{Entry, letter, opt_out, sort, tell};
pub(crate) use fields::fields;
pub(crate) use search::{Found, SessionFindings, find, find_by_index, id, sources, wanted};
pub(crate) use words::Sources;
