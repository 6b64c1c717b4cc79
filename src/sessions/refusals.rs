//! The refusals that this table decides.

use crate::refusal::{Code, Refusal};
use std::time::Duration;

/// The answer about a text that may have gone out.
pub(crate) fn unknown() -> Refusal {
    let message = "a text may have gone out, and nothing shows whether it did; do not send the invite again";
    Refusal::new(Code::OutcomeUnknown, message)
}

/// The answer to an invite whose time was over before a text could be handed over.
pub(crate) fn too_late() -> Refusal {
    Refusal::new(Code::InviteExpired, "the invite was too old when its turn came; no text was sent")
}

/// The answer to an invite whose number has opted out.
pub(crate) fn opted_out() -> Refusal {
    Refusal::new(Code::OptedOut, "the number has opted out of texts").field("smsPhone")
}

/// The answer to an invite whose number has had as many texts as the group's limit allows.
pub(super) fn too_many(after: Duration) -> Refusal {
    let message = "the number has had as many of the group's texts as it may have for now";
    Refusal::new(Code::RateLimited, message).field("smsPhone").retry_after(after)
}
