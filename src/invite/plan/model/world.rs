//! What there is in the model: the row, the messages of one invite, the workers, and the texts at the provider.

use super::super::Policy;
use crate::{
    config::WhenUnsure,
    refusal::{Code, Refusal},
    sessions::{Outcome, Session, Standing},
};
use sqlx::types::Json;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// Seconds: a moment, or a span. The row is inserted at 0.
pub type Time = i8;

/// From a claim to the last moment at which its text may be written.
pub const MARGIN: Time = 1;
pub const TIMEOUT: Time = 1;
pub const MAX_ATTEMPTS: u8 = 2;
/// Messages of the invite that may be there when a fault makes one more.
pub const MESSAGES: u8 = 3;

/// One run's bounds and assumptions.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub when_unsure: WhenUnsure,
    pub settle: Time,
    /// How long the provider's list may lag: not longer than `settle`, by the assumption.
    pub lag: Time,
    pub ttl: Time,
    /// After the publish, the invite is too old.
    pub deadline: Option<Time>,
    pub crashes: u8,
    pub stops: u8,
    pub broken: &'static [Broken],
}

/// A guard that is taken away, which the search has to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    NoCheckBeforeTheWrite,
    RecordIgnoresTheFence,
    ClaimIgnoresTheLease,
    ClaimIgnoresTheFence,
    /// A look counts from when it was written down, and not from when it was made.
    LookCountsWhenRecorded,
    /// A delivery that was taken back before its row was there counts as a new publish.
    TakenBackIsPublishedAnew,
}

impl Config {
    pub fn is(&self, broken: Broken) -> bool {
        self.broken.contains(&broken)
    }

    pub fn policy(&self) -> Policy {
        Policy {
            max_attempts: MAX_ATTEMPTS.into(),
            settle: Duration::from_secs(self.settle.unsigned_abs().into()),
            when_unsure: self.when_unsure,
        }
    }

    /// From here on, time changes nothing: the session is over, and so is each try.
    pub fn end(&self) -> Time {
        self.ttl + MARGIN + TIMEOUT
    }
}

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
    Unknown,
}

impl Why {
    pub fn of(refusal: &Refusal) -> Self {
        match refusal.code {
            Code::ProviderRejected => Self::Rejected,
            Code::ProviderUnavailable => Self::Unavailable,
            Code::InviteExpired => Self::Expired,
            Code::OutcomeUnknown => Self::Unknown,
            other => unreachable!("{other:?}"),
        }
    }

    pub fn refusal(self) -> Refusal {
        let code = match self {
            Self::Rejected => Code::ProviderRejected,
            Self::Unavailable => Code::ProviderUnavailable,
            Self::Expired => Code::InviteExpired,
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

/// What a worker keeps of a row that it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    pub fence: u8,
    pub attempts: u8,
    pub looks: u8,
    pub unsettled: bool,
    pub unsure_unless_looked: bool,
    pub abandoned: u8,
    pub at: Time,
}

/// `sessions::Session`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    pub fence: u8,
    pub attempts: u8,
    pub unsettled: bool,
    pub write_by: Time,
    /// Of a row that was just inserted, whose age is looked at once more.
    pub fresh: bool,
}

impl Claim {
    pub fn session(&self, left: Time) -> Session {
        let left = Duration::from_secs(left.max(0).unsigned_abs().into());
        Session::claimed(self.attempts.into(), self.unsettled, left)
    }
}

/// `statements::Ended`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ended {
    pub fence: u8,
    pub status: Status,
    pub text_state: TextState,
    pub sid: bool,
    pub why: Option<Why>,
    pub rest: Option<Time>,
}

/// Which effect of its message's way comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Next {
    Nothing,
    /// `Sessions::open` is to be called.
    Open,
    Insert { write_by: Time },
    Read,
    Look(Seen),
    Missed(Seen),
    /// `Sessions::accepted`.
    Accept,
    /// `Sessions::claim` is to be called.
    BeginClaim(Seen),
    Claim { seen: Seen, write_by: Time },
    Close(Ended),
    Write(Claim),
    /// The provider has its request until then.
    Answer { claim: Claim, until: Time },
    Record(Ended),
    Reply(Told),
    Copy,
    Ack,
}

/// What a worker has of the invite's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    Nothing,
    /// As it was published, delivered for the first time.
    First,
    /// A redelivery, or a copy.
    Again,
    /// Its line was lost: the broker has given it to another.
    TakenBack { first: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Worker {
    pub next: Next,
    pub held: Held,
    pub stopped: bool,
}

impl Worker {
    pub const IDLE: Self = Self { next: Next::Nothing, held: Held::Nothing, stopped: false };

    pub fn holds(&self) -> bool {
        matches!(self.held, Held::First | Held::Again)
    }
}

/// The whole of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub now: Time,
    pub deadline: Option<Time>,
    pub row: Option<Row>,
    /// The message as it was published is in its queue.
    pub published: bool,
    /// Redeliveries and copies that are in a queue.
    pub again: u8,
    pub workers: [Worker; 2],
    pub crashes_left: u8,
    pub stops_left: u8,
    pub posts: u8,
    pub texts: u8,
    /// When the provider accepted the first of them.
    pub accepted_at: Time,
    /// A request whose worker died: the provider may yet take it, until then.
    pub orphan: Option<Time>,
    pub told: Option<Told>,
    pub wrong: Option<Wrong>,
}

/// What must not happen, seen when it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    TwoRepliesDiffer,
    AnotherRowForOnePublish,
    NoOutcomeToAnswer,
}

impl State {
    pub fn start(config: &Config) -> Self {
        Self {
            now: 0,
            deadline: config.deadline,
            row: None,
            published: true,
            again: 0,
            workers: [Worker::IDLE; 2],
            crashes_left: config.crashes,
            stops_left: config.stops,
            posts: 0,
            texts: 0,
            accepted_at: 0,
            orphan: None,
            told: None,
            wrong: None,
        }
    }

    pub fn messages(&self) -> u8 {
        let held: u8 = self.workers.iter().map(|worker| u8::from(worker.holds())).sum();
        u8::from(self.published) + self.again + held
    }

    pub fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| self.now >= deadline)
    }

    /// What the row answers, as `Standing::outcome` reads it.
    pub fn outcome(&self) -> Option<Told> {
        let row = self.row?;
        let sent = || (row.status != Status::Sending).then_some(Told::Sent);
        row.error.map(Told::Refused).or_else(sent)
    }

    pub fn accept(&mut self) {
        if self.texts == 0 {
            self.accepted_at = self.now;
        }
        self.texts += 1;
    }

    /// Two workers are as good as each other.
    pub fn sorted(mut self) -> Self {
        self.workers.sort_unstable();
        self
    }
}
