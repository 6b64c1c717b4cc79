//! Whether a text may be handed over once more.

use crate::optouts::Hashes;

/// Whose text it is: who it comes from, and what stands for its number among the opt-outs.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    pub sender: &'a str,
    pub hashes: Hashes,
}

/// Whether a text may be handed over once more, as the database has it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    Granted,
    /// The operator has switched its group off.
    SwitchedOff,
    /// The number wants no texts from this sender.
    OptedOut,
}
