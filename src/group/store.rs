//! The statements on the groups' tables.

mod add;
pub(crate) mod addresses;
mod error;
mod groups;
pub(crate) mod keys;
pub(crate) mod last_uses;
pub(crate) mod remove;
pub(crate) mod reseal;
pub(crate) mod summaries;
pub(crate) mod website_sessions;

pub(crate) use add::add;
pub(crate) use error::StoreError;
pub(crate) use groups::{StoredGroup, disable, enable, list, pause, resume, set, show, version};
