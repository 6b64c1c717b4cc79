//! An invite: the request as it arrived, its way to an outcome, and the reply to it.

mod attempt;
pub(crate) mod authenticate;
pub(crate) mod context;
pub(crate) mod door;
pub(crate) mod envelope;
mod extent;
pub(crate) mod key_spaces;
pub(crate) mod metrics;
pub(crate) mod plan;
pub mod process;
pub(crate) mod pursue;
mod refusal_log;
mod refused_credentials;
pub(crate) mod refused_senders;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod sender_clocks;
mod slot;
pub(crate) mod verdict;

pub(crate) use authenticate::group_disabled;
pub use authenticate::{Authenticator, Caller};
pub(crate) use context::Context;
pub use envelope::Envelope;
pub(crate) use extent::Extent;
pub use process::process;
pub(crate) use refusal_log::RefusalLog;
pub use reply::Reply;
pub use request::Request;
pub(crate) use verdict::Verdict;
