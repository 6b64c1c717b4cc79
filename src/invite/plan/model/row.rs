//! The invite's row: its columns that decide, their values, and what a reply makes of them.

use super::clock::Time;
use crate::{
    refusal::{Code, Refusal},
    sessions::{Outcome, Standing},
};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Sending,
    Sent,
    Unknown,
    Rejected,
    Failed,
}

impl Status {
    pub fn of(name: &str) -> Self {
        match name {
            "sending" => Self::Sending,
            "sent" => Self::Sent,
            "unknown" => Self::Unknown,
            "rejected" => Self::Rejected,
            "failed" => Self::Failed,
            other => unreachable!("{other}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Unknown => "unknown",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TextState {
    Begun,
    Waiting,
    Unknown,
    Accepted,
    Refused,
}

impl TextState {
    pub fn of(name: &str) -> Self {
        match name {
            "begun" => Self::Begun,
            "waiting" => Self::Waiting,
            "unknown" => Self::Unknown,
            "accepted" => Self::Accepted,
            "refused" => Self::Refused,
            other => unreachable!("{other}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Waiting => "waiting",
            Self::Unknown => "unknown",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
        }
    }
}

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
    pub fn standing(&self, now: Time) -> Standing {
        // extract(epoch from … - now())
        let until = |at: Time| f64::from(at - now);
        let text = |text: &str| Some(text.to_owned());
        Standing {
            id: Uuid::nil(),
            group_id: 72,
            status: self.status.name().to_owned(),
            text_state: text(self.text_state.name()),
            fence: self.fence.into(),
            ticket: Uuid::nil(),
            attempts: self.attempts.into(),
            looks: self.looks.into(),
            unsettled: self.unsettled,
            abandoned: self.abandoned.into(),
            session_key: text("123456"),
            token: text("abcdefghijklmnop"),
            session_type: Some(1),
            phone: text("+11110000000"),
            invitation_text: text("code 123456"),
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
