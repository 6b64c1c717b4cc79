//! The invite's row: its columns that decide, their values, and what a reply makes of them.

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
pub struct Row {
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
    pub error: Option<Why>,
    pub sid: bool,
}

impl Row {
    /// `statements::find`.
    pub fn standing(&self, now: Time) -> SessionRow {
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
            error: self.error.map(|why| Json(why.refusal())),
            request_sha256: None,
            same_params: true,
            blanked: false,
            content_hash: None,
            asked_params: None,
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

/// The codes of refusals that come up here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    Rejected,
    Unavailable,
    Expired,
    SwitchedOff,
    Unknown,
}

impl Why {
    pub fn of(refusal: &Refusal) -> Self {
        match refusal.code {
            Code::ProviderRejected => Self::Rejected,
            Code::ProviderUnavailable => Self::Unavailable,
            Code::InviteExpired => Self::Expired,
            Code::GroupDisabled => Self::SwitchedOff,
            Code::OutcomeUnknown => Self::Unknown,
            other => unreachable!("{other:?}"),
        }
    }

    pub fn refusal(self) -> Refusal {
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

/// What a reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Told {
    Sent,
    Refused(Why),
}

impl Told {
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Sent(_) => Self::Sent,
            Outcome::Refused(refusal) => Self::Refused(Why::of(refusal)),
        }
    }

    /// Whether it says that surely nobody was texted.
    pub fn denies_a_text(self) -> bool {
        !matches!(self, Self::Sent | Self::Refused(Why::Unknown))
    }
}
