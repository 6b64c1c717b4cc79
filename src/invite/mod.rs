//! An invite: the request as it arrived, its way to an outcome, and the answer to it.

pub mod envelope;
pub mod process;
pub mod reply;
pub mod request;
pub mod trace;
pub mod verdict;

pub use envelope::Envelope;
pub use process::{Context, process};
pub use reply::Reply;
pub use request::Request;
pub use verdict::Verdict;
