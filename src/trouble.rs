//! Failures that leave an invite without an answer.

/// Why an invite could not be finished. Unlike with a refusal, nothing was decided.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Trouble {
    /// The worker is stopping: the message returns to the queue, for another worker.
    #[error("the worker is stopping")]
    Stopping,
    /// A connection was lost during a statement that must not be repeated, so that its result is unknown. The message returns
    /// to the queue, and is processed from the beginning.
    #[error("it is not known whether the statement {0:?} was carried out")]
    Unsure(&'static str),
    /// The row of an open invite is gone: the database has lost it. A text may exist.
    #[error("the row of an open invite is gone")]
    RowLost,
    /// A bug, or data that the database will never accept: trying again cannot help.
    #[error("{0}")]
    Defect(String),
}
