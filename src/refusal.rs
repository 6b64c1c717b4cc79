//! Why an invite got no session: the codes of the contract's §7, each with what follows from it.
//!
//! A [`Refusal`] is an answer, not an error: it is decided, it is stored, and it is told to the sender.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The codes that a reply can carry, with the HTTP status that the gateway gives for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    RequestMalformed,
    FieldMissing,
    FieldInvalid,
    CredentialMissing,
    CredentialAmbiguous,
    CredentialMalformed,
    CredentialInvalid,
    CredentialExpired,
    GroupMismatch,
    GroupDisabled,
    PhoneInvalid,
    PhoneNotAllowed,
    OptedOut,
    IdempotencyConflict,
    RateLimited,
    ProviderRejected,
    ProviderUnavailable,
    ProviderMisconfigured,
    OutcomeUnknown,
    InviteExpired,
    InternalError,
}

impl Code {
    /// Every code, in the order of the contract's table.
    pub const ALL: [Self; 21] = [
        Self::RequestMalformed,
        Self::FieldMissing,
        Self::FieldInvalid,
        Self::CredentialMissing,
        Self::CredentialAmbiguous,
        Self::CredentialMalformed,
        Self::CredentialInvalid,
        Self::CredentialExpired,
        Self::GroupMismatch,
        Self::GroupDisabled,
        Self::PhoneInvalid,
        Self::PhoneNotAllowed,
        Self::OptedOut,
        Self::IdempotencyConflict,
        Self::RateLimited,
        Self::ProviderRejected,
        Self::ProviderUnavailable,
        Self::ProviderMisconfigured,
        Self::OutcomeUnknown,
        Self::InviteExpired,
        Self::InternalError,
    ];

    /// The code as it stands in a reply and in `sessions.error_code`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestMalformed => "request_malformed",
            Self::FieldMissing => "field_missing",
            Self::FieldInvalid => "field_invalid",
            Self::CredentialMissing => "credential_missing",
            Self::CredentialAmbiguous => "credential_ambiguous",
            Self::CredentialMalformed => "credential_malformed",
            Self::CredentialInvalid => "credential_invalid",
            Self::CredentialExpired => "credential_expired",
            Self::GroupMismatch => "group_mismatch",
            Self::GroupDisabled => "group_disabled",
            Self::PhoneInvalid => "phone_invalid",
            Self::PhoneNotAllowed => "phone_not_allowed",
            Self::OptedOut => "opted_out",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::RateLimited => "rate_limited",
            Self::ProviderRejected => "provider_rejected",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::ProviderMisconfigured => "provider_misconfigured",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::InviteExpired => "invite_expired",
            Self::InternalError => "internal_error",
        }
    }

    /// The HTTP status for it; a malformed request may be 413 or 415 instead (see [`Refusal::status`]).
    pub const fn http_status(self) -> u16 {
        match self {
            Self::RequestMalformed | Self::FieldMissing | Self::FieldInvalid | Self::PhoneInvalid => 400,
            Self::CredentialMissing
            | Self::CredentialAmbiguous
            | Self::CredentialMalformed
            | Self::CredentialInvalid
            | Self::CredentialExpired => 401,
            Self::GroupMismatch | Self::GroupDisabled | Self::PhoneNotAllowed | Self::OptedOut => 403,
            Self::IdempotencyConflict => 409,
            Self::RateLimited => 429,
            Self::InternalError => 500,
            Self::ProviderRejected => 502,
            Self::ProviderUnavailable | Self::ProviderMisconfigured => 503,
            Self::OutcomeUnknown | Self::InviteExpired => 504,
        }
    }

    /// Whether the request might have succeeded (`failed`); if not, it never can as it stands (`rejected`).
    pub const fn is_failure(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::ProviderUnavailable
                | Self::ProviderMisconfigured
                | Self::OutcomeUnknown
                | Self::InviteExpired
                | Self::InternalError
        )
    }

    /// Whether sending the same request again is sensible.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::ProviderUnavailable | Self::ProviderMisconfigured)
    }
}

/// A sender that the operator has to mend is not worth another request sooner.
pub(crate) const MENDED_AFTER: Duration = Duration::from_mins(1);

/// The `error` object of a reply, and of the row that stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    pub code: Code,
    /// One sentence for the sender's developer. Never holds a credential or a phone number.
    pub message: String,
    /// The field at fault, with dots (`sessionParams.camera`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The HTTP status that the gateway gives.
    pub status: u16,
    pub retryable: bool,
    /// The provider's own code, when the provider refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_code: Option<i64>,
    /// Seconds after which a retryable request is worth sending again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            status: code.http_status(),
            retryable: code.is_retryable(),
            provider_code: None,
            retry_after_seconds: None,
        }
    }

    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Worth sending again after that, in whole seconds and one at least.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after_seconds = Some((after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1));
        self
    }

    #[must_use]
    pub fn provider_code(mut self, code: Option<i64>) -> Self {
        self.provider_code = code;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_as_none() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (3_599_400, 3_600)] {
            let refusal = Refusal::new(Code::RateLimited, "x").retry_after(Duration::from_millis(millis));
            assert_eq!(refusal.retry_after_seconds, Some(seconds), "{millis}");
        }
    }
}
