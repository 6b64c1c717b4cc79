//! A message that is being processed.

use crate::{invite::Envelope, suspects::SuspectCount};
use lapin::message::Delivery;

/// A delivered message, its envelope, and our own count of its tries.
pub(super) struct Message {
    pub delivery: Delivery,
    pub envelope: Envelope,
    /// How often it was processed alone, this time included; `None` for a message that is not a suspect.
    pub suspect: Option<SuspectCount>,
}
