//! The model's state: the row, the messages of one invite, the workers, and the texts at the provider.

use super::{
    super::Policy,
    clock::{MARGIN, TIMEOUT, Time},
    row::{ModelCode, ModelReply, ModelRow},
};
use crate::{
    config::WhenUnsure,
    sessions::{Claim, Status, TextState},
};
use std::time::Duration;

pub(super) const MAX_ATTEMPTS: u8 = 2;
/// The most messages of the invite that may exist when a fault adds one more.
pub(super) const MESSAGES: u8 = 3;

/// One run's bounds and assumptions.
#[derive(Debug, Clone, Copy)]
pub(super) struct ModelConfig {
    pub when_unsure: WhenUnsure,
    pub settle: Time,
    /// How long the provider's list may lag. The promise assumes that this is not longer than `settle`.
    pub lag: Time,
    pub ttl: Time,
    /// When the invite is too old, counted from its publish.
    pub deadline: Option<Time>,
    pub crashes: u8,
    pub stops: u8,
    /// Whether the operator may switch the group off, at any time.
    pub switches_off: bool,
    pub removed: &'static [RemovedGuard],
}

/// A guard that the model leaves out, so that the search has to find a broken promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RemovedGuard {
    NoCheckBeforeTheWrite,
    RecordIgnoresTheFence,
    ClaimIgnoresTheFence,
    ClaimIgnoresTheGroup,
    /// A look counts from its record, and not from when it was made.
    LookCountsWhenRecorded,
    /// A delivery that was withdrawn before it had a row counts as a new publish.
    WithdrawnCountsAsNewPublish,
    /// The invite has no message id, so that no constraint prevents a second row.
    NoMessageId,
}

impl ModelConfig {
    pub(super) fn lacks(&self, guard: RemovedGuard) -> bool {
        self.removed.contains(&guard)
    }

    pub(super) fn policy(&self) -> Policy {
        Policy {
            max_attempts: MAX_ATTEMPTS.into(),
            settle: Duration::from_secs(self.settle.unsigned_abs().into()),
            when_unsure: self.when_unsure,
        }
    }

    /// From here on, time changes nothing: the session and every try are over.
    pub(super) fn end(&self) -> Time {
        self.ttl + MARGIN + TIMEOUT
    }
}

/// The values that a worker remembers from its last read of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowSnapshot {
    pub fence: u8,
    pub attempts: u8,
    pub looks: u8,
    pub unsettled: bool,
    pub may_have_been_taken: bool,
    pub abandoned: u8,
    pub at: Time,
}

/// `sessions::Claim`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ModelClaim {
    pub fence: u8,
    pub attempts: u8,
    pub unsettled: bool,
    pub write_by: Time,
    /// The row was just inserted. The worker checks the invite's age once more.
    pub fresh: bool,
}

impl ModelClaim {
    pub(super) fn claim(self, left: Time) -> Claim {
        let left = Duration::from_secs(left.max(0).unsigned_abs().into());
        Claim::claimed(self.attempts.into(), self.unsettled, left)
    }
}

/// `statements::LedgerEntry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ModelEntry {
    pub fence: u8,
    pub status: Status,
    pub text_state: TextState,
    pub sid: bool,
    pub why: Option<ModelCode>,
    pub rest: Option<Time>,
}

/// What a worker does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Effect {
    Nothing,
    /// Before `Sessions::open`.
    Open,
    Insert {
        write_by: Time,
    },
    Read,
    /// The same, after the worker found that the group is switched off.
    ReadSwitchedOff,
    Look(RowSnapshot),
    Missed(RowSnapshot),
    /// `Sessions::accepted`.
    Accept,
    /// `Sessions::may_send`. `Sessions::claim` follows.
    BeginClaim(RowSnapshot),
    Claim {
        snapshot: RowSnapshot,
        write_by: Time,
    },
    Close(ModelEntry),
    Write(ModelClaim),
    /// The provider answers the request, before `until`.
    Answer {
        claim: ModelClaim,
        until: Time,
    },
    Record(ModelEntry),
    Reply(ModelReply),
    Copy,
    Ack,
}

/// Which of the invite's messages a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ModelDelivery {
    Nothing,
    /// The published message, delivered for the first time.
    First,
    /// A redelivery, or a retry copy.
    Again,
    /// Its connection was lost, and the broker delivers the message to another worker.
    Withdrawn {
        first: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ModelWorker {
    pub next: Effect,
    pub held: ModelDelivery,
    pub stopped: bool,
}

impl ModelWorker {
    pub(super) const IDLE: Self =
        Self { next: Effect::Nothing, held: ModelDelivery::Nothing, stopped: false };

    pub(super) fn holds(&self) -> bool {
        matches!(self.held, ModelDelivery::First | ModelDelivery::Again)
    }
}

/// One state of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ModelState {
    pub now: Time,
    pub deadline: Option<Time>,
    /// The operator has switched the group off.
    pub switched_off: bool,
    pub row: Option<ModelRow>,
    /// The published message is still in its queue.
    pub published: bool,
    /// Redeliveries and retry copies in a queue.
    pub again: u8,
    pub workers: [ModelWorker; 2],
    pub crashes_left: u8,
    pub stops_left: u8,
    pub posts: u8,
    pub texts: u8,
    /// When the provider accepted the first text.
    pub accepted_at: Time,
    /// The request of a worker that died. The provider may still take it until this time.
    pub orphan: Option<Time>,
    pub reply: Option<ModelReply>,
    pub broken_promise: Option<BrokenPromise>,
}

/// What must never happen, noted when it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum BrokenPromise {
    TwoRepliesDiffer,
    AnotherRowForOnePublish,
    NoOutcomeToAnswer,
    ClaimedWhileSwitchedOff,
}

impl ModelState {
    pub(super) fn start(config: &ModelConfig) -> Self {
        Self {
            now: 0,
            deadline: config.deadline,
            switched_off: false,
            row: None,
            published: true,
            again: 0,
            workers: [ModelWorker::IDLE; 2],
            crashes_left: config.crashes,
            stops_left: config.stops,
            posts: 0,
            texts: 0,
            accepted_at: 0,
            orphan: None,
            reply: None,
            broken_promise: None,
        }
    }

    pub(super) fn messages(&self) -> u8 {
        let held: u8 = self.workers.iter().map(|worker| u8::from(worker.holds())).sum();
        u8::from(self.published) + self.again + held
    }

    pub(super) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| self.now >= deadline)
    }

    /// The reply for the row, as `SessionRow::outcome` reads it.
    pub(super) fn outcome(&self) -> Option<ModelReply> {
        let row = self.row?;
        let sent = || (row.status != Status::Sending).then_some(ModelReply::Sent);
        row.error.map(ModelReply::Refused).or_else(sent)
    }

    pub(super) fn accept(&mut self) {
        if self.texts == 0 {
            self.accepted_at = self.now;
        }
        self.texts += 1;
    }

    /// One representative of all states that continue in the same ways.
    pub(super) fn canonical(mut self, config: &ModelConfig) -> Self {
        // The order of the workers does not matter.
        self.workers.sort_unstable();
        if self.texts == 0 || self.accepted_at + config.lag <= self.now {
            self.accepted_at = -config.lag;
        }
        // Once there is an outcome, no statement reads other columns.
        let Some(row) = self.row.as_mut().filter(|row| row.status != Status::Sending) else { return self };
        let &mut ModelRow { status, attempts, error, sid, expires_at, .. } = row;
        *row = ModelRow {
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
        // Time matters only for a text that may still be written.
        let may_write = |worker: &ModelWorker| {
            matches!(
                worker.next,
                Effect::Insert { .. } | Effect::Write(_) | Effect::Answer { .. } | Effect::Claim { .. }
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
