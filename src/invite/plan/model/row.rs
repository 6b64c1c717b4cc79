//! The invite's row: the columns that decide, their values, and the reply for them.

use super::clock::Time;
use crate::{
    group_id::GroupId,
    phone::PhoneNumber,
    refusal::{Code, Refusal},
    session_key::{SessionKey, Token},
    sessions::{Outcome, SessionRow, Status, TextState},
};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

/// The columns that decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ModelRow {
    pub status: Status,
    pub text_state: TextState,
    pub fence: u8,
    pub attempts: u8,
    pub looks: u8,
    pub looked_at: Option<Time>,
    pub unsettled: bool,
    pub abandoned: u8,
    pub unsure_from: Time,
    pub lease_until: Option<Time>,
    pub expires_at: Time,
    pub deadline_at: Option<Time>,
    pub error: Option<ModelCode>,
    pub sid: bool,
}

impl ModelRow {
    /// `statements::find`.
    pub(super) fn session_row(&self, now: Time) -> SessionRow {
        // extract(epoch from … - now())
        let until = |at: Time| f64::from(at - now);
        SessionRow {
            id: Uuid::nil(),
            group_id: GroupId::new(72).unwrap(),
            status: self.status,
            text_state: Some(self.text_state),
            fence: self.fence.into(),
            ticket: Uuid::nil(),
            attempts: self.attempts.into(),
            looks: self.looks.into(),
            unsettled: self.unsettled,
            abandoned: self.abandoned.into(),
            session_key: Some(SessionKey::example(6)),
            token: Some(Token::example()),
            session_type: Some(1),
            phone: PhoneNumber::from_e164("+11110000000"),
            invitation_text: Some("code 123456".to_owned().into()),
            provider_message_id: self.sid.then(|| "SM1".to_owned()),
            created_at: OffsetDateTime::UNIX_EPOCH,
            expires_at: Some(OffsetDateTime::UNIX_EPOCH),
            look_since: None,
            error: self.error.map(|why| Json(why.refusal())),
            request_sha256: None,
            same_params: true,
            blanked: false,
            content_hash: None,
            request_params: None,
            read_at: OffsetDateTime::UNIX_EPOCH,
            age: 0.0,
            // coalesce(lease_until - now(), 0)
            lease_left: self.lease_until.map_or(0.0, until),
            // coalesce(now() - coalesce(unsure_from, lease_until), 0)
            unsure_for: -until(self.unsure_from),
            looked_ago: self.looked_at.map(|at| -until(at)),
            session_left: until(self.expires_at),
            deadline_left: self.deadline_at.map(until),
        }
    }
}

/// The refusals that occur in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ModelCode {
    Rejected,
    Unavailable,
    Expired,
    SwitchedOff,
    Unknown,
}

impl ModelCode {
    pub(super) fn of(refusal: &Refusal) -> Self {
        match refusal.code {
            Code::ProviderRejected => Self::Rejected,
            Code::ProviderUnavailable => Self::Unavailable,
            Code::InviteExpired => Self::Expired,
            Code::GroupDisabled => Self::SwitchedOff,
            Code::OutcomeUnknown => Self::Unknown,
            other => unreachable!("{other:?}"),
        }
    }

    pub(super) fn refusal(self) -> Refusal {
        let code = match self {
            Self::Rejected => Code::ProviderRejected,
            Self::Unavailable => Code::ProviderUnavailable,
            Self::Expired => Code::InviteExpired,
            Self::SwitchedOff => Code::GroupDisabled,
            Self::Unknown => Code::OutcomeUnknown,
        };
        Refusal::new(code, "")
    }
}

/// A reply, without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ModelReply {
    Sent,
    Refused(ModelCode),
}

impl ModelReply {
    pub(super) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Sent(_) => Self::Sent,
            Outcome::Refused(refusal) => Self::Refused(ModelCode::of(refusal)),
        }
    }

    /// Whether it claims that surely no text was sent.
    pub(super) fn denies_text(self) -> bool {
        !matches!(self, Self::Sent | Self::Refused(ModelCode::Unknown))
    }
}
