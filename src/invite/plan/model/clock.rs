//! The model's clock.

/// Seconds, as a moment or as a span. The row is inserted at 0.
pub(super) type Time = i8;

/// From a claim to the last moment at which its text may be written.
pub(super) const MARGIN: Time = 1;
pub(super) const TIMEOUT: Time = 1;
