//! The provider: handing it a text, what its answer means, and looking for a text whose answer was lost.

mod answer;
mod client;
mod connections;
mod faults;
mod list;
pub(crate) mod metrics;
mod write_guard;

pub(crate) use answer::RetryReason;
pub use answer::TryResult;
pub(crate) use client::{OutgoingText, ProviderPermit, Sms};
pub(crate) use list::{AnyText, FoundText, FoundTexts, ListedMessage, LookError, TextSearch};

/// What the fuzzing targets call (docs/FUZZING.md).
#[doc(hidden)]
pub mod fuzzing {
    use super::{TryResult, answer, list};
    use url::Url;

    /// Reads the answer to a create.
    pub fn read(status: u16, retry_after: Option<&str>, body: &[u8]) -> TryResult {
        answer::read(status, retry_after, body)
    }

    /// Reads a page of the list; `list` is the first page's address.
    pub fn page(list: &Url, body: &[u8]) {
        list::page(list, body);
    }
}
