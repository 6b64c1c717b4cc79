//! How a check ends.

/// A check's end, unless it fails.
pub(crate) enum Outcome {
    Passed,
    /// Why the check cannot be made here.
    Skipped(&'static str),
}
