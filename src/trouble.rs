//! What can go wrong with an invite that is not an answer to it.

/// An invite that could not be finished. Unlike a refusal, nothing has been decided.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Trouble {
    /// The worker is stopping: the message goes back to the queue, for another.
    #[error("the worker is stopping")]
    Stopping,
    /// A lost connection hides whether a statement was carried out that must not be repeated. The message goes back to the
    /// queue, and begins anew.
    #[error("nobody knows whether the statement {0:?} was carried out")]
    Unsure(&'static str),
    /// A bug, or data that the database will never take: trying again cannot help.
    #[error("{0}")]
    Defect(String),
}
