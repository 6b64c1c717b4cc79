//! An invite: the request as it arrived, its way to an outcome, and the answer to it.

mod attempt;
pub mod authenticate;
pub mod context;
pub mod door;
pub mod envelope;
mod extent;
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
pub use extent::Extent;
pub use process::process;
pub use reply::Reply;
pub use request::Request;
pub use verdict::Verdict;
