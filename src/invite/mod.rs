//! An invite: the request as it arrived, its way to an outcome, and the answer to it.

pub mod authenticate;
pub mod context;
pub mod door;
pub mod envelope;
pub mod metrics;
pub mod plan;
pub mod process;
pub mod pursue;
pub mod reply;
pub mod request;
mod turn;
pub mod verdict;

pub use authenticate::{Authenticator, Caller, group_disabled};
pub use context::Context;
pub use envelope::Envelope;
pub use process::process;
pub use reply::Reply;
pub use request::Request;
pub use verdict::Verdict;

use crate::sessions::Resume;

/// How far an invite has come.
#[derive(Debug, PartialEq)]
pub enum Progress {
    Answered(Reply),
    /// Nothing can be done for it now: a copy of its message comes again.
    Later(Resume),
}

impl From<Reply> for Progress {
    fn from(reply: Reply) -> Self {
        Self::Answered(reply)
    }
}
