//! The model's clock.

/// Seconds: a moment, or a span. The row is inserted at 0.
pub type Time = i8;

/// From a claim to the last moment at which its text may be written.
pub const MARGIN: Time = 1;
pub const TIMEOUT: Time = 1;
