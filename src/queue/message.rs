//! A message that is worked on.

use crate::{invite::Envelope, suspects::Tried};
use lapin::message::Delivery;

/// A message, and what is known of the deliveries before this one.
pub(super) struct Message {
    pub delivery: Delivery,
    pub envelope: Envelope,
    /// How often it was worked alone, with this time; `None` for a message that is no suspect.
    pub tried: Option<Tried>,
}
