//! Every statement on the groups' tables, as verbs.

mod add;
pub mod addresses;
mod error;
mod groups;
pub mod keys;
pub mod reseal;
pub mod website_sessions;

pub use add::add;
pub use error::StoreError;
pub use groups::{Stored, disable, enable, list, set, show, version};
