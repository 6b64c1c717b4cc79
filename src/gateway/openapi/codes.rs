//! The table of error codes.

use crate::{gateway::GatewayCode, refusal::Code};
use serde::Serialize;
use std::fmt::Write as _;
use strum::VariantArray as _;

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CodeEntry {
    pub code: &'static str,
    pub status: u16,
    /// Whether sending the same request again is sensible.
    pub retryable: bool,
    pub meaning: &'static str,
}

/// Every code: those of an invite's reply, and the gateway's own.
pub(crate) fn error_codes() -> Vec<CodeEntry> {
    let of_replies = Code::ALL.iter().map(|&code| CodeEntry {
        code: code.as_str(),
        status: code.http_status(),
        retryable: code.is_retryable(),
        meaning: meaning(code),
    });
    let own = GatewayCode::VARIANTS.iter().map(|&code| CodeEntry {
        code: code.as_str(),
        status: code.http_status(),
        retryable: code.is_retryable(),
        meaning: code.meaning(),
    });
    of_replies.chain(own).collect()
}

/// The table in Markdown.
pub(super) fn table() -> String {
    let mut table = "| code | status | again? | when |\n|---|---|---|---|\n".to_owned();
    for CodeEntry { code, status, retryable, meaning } in error_codes() {
        let again = if retryable { "yes" } else { "no" };
        // Writing to a string does not fail.
        let _ = writeln!(table, "| `{code}` | {status} | {again} | {meaning} |");
    }
    table
}

const fn meaning(code: Code) -> &'static str {
    match code {
        Code::RequestMalformed => {
            "The body is not UTF-8, not JSON, not an object, or repeats a field. 413: it has more than 64 KiB. 415: the Content-Type \
             is not JSON, or the Content-Encoding is not identity."
        }
        Code::FieldMissing => "A required field or parameter is missing; `field` names it.",
        Code::FieldInvalid => {
            "A field, a parameter or the Idempotency-Key breaks its rule; `field` names it."
        }
        Code::CredentialMissing => "There is no credential.",
        Code::CredentialAmbiguous => "There are two credentials that differ.",
        Code::CredentialMalformed => "The credential has the wrong shape.",
        Code::CredentialInvalid => {
            "Unknown group, user, key or token; revoked; a wrong signature; an expiry too far ahead."
        }
        Code::CredentialExpired => "The credential was good, and its time is over.",
        Code::GroupMismatch => "The credential belongs to another group than groupid.",
        Code::GroupDisabled => "The operator has switched the group off.",
        Code::PhoneInvalid => "The value is not a number that can take a text.",
        Code::PhoneNotAllowed => "The group or the provider does not text that country.",
        Code::OptedOut => "The number has opted out of texts.",
        Code::IdempotencyConflict => "The Idempotency-Key was used for an invite with other content.",
        Code::RateLimited => "Too many texts to the number, invites of the group, or wrong session keys.",
        Code::ProviderRejected => "The provider refused the text; `providerCode` says why.",
        Code::ProviderUnavailable => "The provider takes no texts at the moment.",
        Code::ProviderMisconfigured => {
            "The provider refuses the sender's number; the operator must correct the setting."
        }
        Code::OutcomeUnknown => "A text may have gone out. Ask the visitor before you invite again.",
        Code::InviteExpired => "The invite was too old when a worker took it. No text was sent.",
        Code::InternalError => "The request could not be finished; the log says why.",
    }
}
