//! What there is in the model: the row, the messages of one invite, the workers, and the texts at the provider.

use super::{
    super::Policy,
    clock::{MARGIN, TIMEOUT, Time},
    row::{Row, Told, Why},
};
use crate::{
    config::WhenUnsure,
    sessions::{Claim, Status, TextState},
};
use std::time::Duration;

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
    /// Whether the operator may switch the group off, at any time.
    pub switches_off: bool,
    pub broken: &'static [Broken],
}

/// A guard that is taken away, which the search has to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    NoCheckBeforeTheWrite,
    RecordIgnoresTheFence,
    ClaimIgnoresTheFence,
    ClaimIgnoresTheGroup,
    /// A look counts from when it was written down, and not from when it was made.
    LookCountsWhenRecorded,
    /// A delivery that was taken back before its row was there counts as a new publish.
    TakenBackIsPublishedAnew,
    /// The invite has none, so that nothing keeps a second row out.
    NoMessageId,
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

/// `sessions::Claim`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeldClaim {
    pub fence: u8,
    pub attempts: u8,
    pub unsettled: bool,
    pub write_by: Time,
    /// Of a row that was just inserted, whose age is looked at once more.
    pub fresh: bool,
}

impl HeldClaim {
    pub fn claim(self, left: Time) -> Claim {
        let left = Duration::from_secs(left.max(0).unsigned_abs().into());
        Claim::claimed(self.attempts.into(), self.unsettled, left)
    }
}

/// `statements::LedgerEntry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
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
    Insert {
        write_by: Time,
    },
    Read,
    /// The same, for a worker that has seen that the group is off.
    ReadSwitchedOff,
    Look(Seen),
    Missed(Seen),
    /// `Sessions::accepted`.
    Accept,
    /// `Sessions::may_send` is to be called, and then `Sessions::claim`.
    BeginClaim(Seen),
    Claim {
        seen: Seen,
        write_by: Time,
    },
    Close(Entry),
    Write(HeldClaim),
    /// The provider has its request until then.
    Answer {
        claim: HeldClaim,
        until: Time,
    },
    Record(Entry),
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
    TakenBack {
        first: bool,
    },
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
    /// The operator has switched the group off.
    pub switched_off: bool,
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
    ClaimedWhileSwitchedOff,
}

impl State {
    pub fn start(config: &Config) -> Self {
        Self {
            now: 0,
            deadline: config.deadline,
            switched_off: false,
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

    /// What the row answers, as `SessionRow::outcome` reads it.
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

    /// One of all the states that can go on in the same ways.
    pub fn canonical(mut self, config: &Config) -> Self {
        // Two workers are as good as each other.
        self.workers.sort_unstable();
        if self.texts == 0 || self.accepted_at + config.lag <= self.now {
            self.accepted_at = -config.lag;
        }
        // Once there is an outcome, no statement asks for more than these.
        let Some(row) = self.row.as_mut().filter(|row| row.status != Status::Sending) else { return self };
        let &mut Row { status, attempts, error, sid, expires_at, .. } = row;
        *row = Row {
            status,
            attempts,
            error,
            sid,
            expires_at,
            text_state: TextState::Accepted,
            fence: 0,
            looks: 0,
            looked_at: None,
            unsettled: false,
            abandoned: 0,
            unsure_from: 0,
            lease_until: None,
            deadline_at: None,
        };
        // Nor does time change anything but for a text that may yet be written.
        let may_write = |worker: &Worker| {
            matches!(
                worker.next,
                Next::Insert { .. } | Next::Write(_) | Next::Answer { .. } | Next::Claim { .. }
            )
        };
        if self.orphan.is_none() && !self.workers.iter().any(may_write) {
            self.now = config.end();
            self.deadline = None;
            self.accepted_at = -config.lag;
        }
        self
    }
}
