//! Why an invite got no session: the codes of the contract's section 7, and what follows from each.
//!
//! A [`Refusal`] is an answer, not an error: it is decided, stored, and sent as a reply.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use strum::{IntoStaticStr, VariantArray};

/// The codes that a reply can carry, with the HTTP status that the gateway gives for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Code {
    /// Not UTF-8, not JSON, not an object, a repeated field, too large, or another content type.
    RequestMalformed,
    /// A required field is missing.
    FieldMissing,
    /// A field has a wrong type or value.
    FieldInvalid,
    /// The request has no credential.
    CredentialMissing,
    /// The request has more than one credential.
    CredentialAmbiguous,
    /// The credential is of no known form.
    CredentialMalformed,
    /// Its signature, issuer or session is wrong.
    CredentialInvalid,
    /// It was good once.
    CredentialExpired,
    /// `groupid` is not the group of the credential.
    GroupMismatch,
    /// The group is switched off.
    GroupDisabled,
    /// `smsPhone` is not a phone number.
    PhoneInvalid,
    /// The group, or the provider, sends no texts to such a number: its country, or a landline.
    PhoneNotAllowed,
    /// The number wants no texts: the visitor answered STOP, or an operator added it.
    OptedOut,
    /// Another request has used this `message_id`.
    IdempotencyConflict,
    /// A limit of the group, of the number, or of wrong session keys is reached.
    RateLimited,
    /// The provider refused the text for good.
    ProviderRejected,
    /// The provider did not accept the text in any of the tries.
    ProviderUnavailable,
    /// The provider refuses the number that the group's texts come from.
    ProviderMisconfigured,
    /// A text may have gone out.
    OutcomeUnknown,
    /// The request was too old before its text was sent.
    InviteExpired,
    /// Set aside in the dead letters.
    InternalError,
}

impl Code {
    /// Every code, in the order of the contract's table.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The code in a reply and in `sessions.error_code`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The HTTP status for the code. A malformed request may have 413 or 415 instead (see [`Refusal::status`]).
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

    /// Whether the same request might have succeeded (`failed`). If not, it can never succeed unchanged (`rejected`).
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

/// The shortest `retryAfterSeconds` for a fault that the operator has to correct.
pub(crate) const MISCONFIGURED_RETRY_AFTER: Duration = Duration::from_mins(1);

/// A step of an invite that is decided: its result, or the refusal.
pub(crate) type Decision<T> = Result<T, Refusal>;

/// The `error` object of a reply, and of the row that stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Why, for programs.
    pub code: Code,
    /// One sentence for the sender's developer. Never holds a credential or a phone number.
    pub message: String,
    /// The field that is wrong, with dots (`sessionParams.camera`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The HTTP status of the gateway's response.
    pub status: u16,
    /// Whether sending the request again is sensible.
    pub retryable: bool,
    /// The provider's own code, when the provider refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_code: Option<i64>,
    /// Seconds after which a retryable request is worth sending again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl Refusal {
    /// A refusal with the code's own status, and no field.
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

    /// Names the field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Replaces the code's own HTTP status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Sets `retryAfterSeconds`: whole seconds, rounded up, and at least one.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after_seconds = Some((after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1));
        self
    }

    /// Adds the provider's own code.
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
    fn a_wait_is_whole_seconds_and_at_least_one() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (3_599_400, 3_600)] {
            let refusal = Refusal::new(Code::RateLimited, "x").retry_after(Duration::from_millis(millis));
            assert_eq!(refusal.retry_after_seconds, Some(seconds), "{millis}");
        }
    }
}
