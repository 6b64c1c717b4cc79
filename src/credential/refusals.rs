//! The refusals of a credential.

use crate::refusal::{Code, Refusal};

pub(super) fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::CredentialMalformed, message)
}

/// The one refusal of every credential that proves nothing. It does not show the reason.
pub(crate) fn unproven() -> Refusal {
    Refusal::new(
        Code::CredentialInvalid,
        "the credential is not good: its group, user, key or token is unknown or revoked, or its signature is wrong",
    )
}
