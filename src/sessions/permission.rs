//! Whether a text may be handed over once more.

use crate::optouts::PhoneHashes;

/// The sender and the number of a text, as the opt-outs are looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipient<'a> {
    pub(crate) sender: &'a str,
    pub(crate) hashes: PhoneHashes,
}

/// Whether a text may be handed over once more, by the database's present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendPermission {
    Granted,
    /// The operator has switched the group off.
    SwitchedOff,
    /// The number has opted out of this sender's texts.
    OptedOut,
    /// The operator has paused the group: not now.
    Paused,
}
