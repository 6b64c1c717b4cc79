//! What the overview shows, as it was at one moment.

use crate::{
    db::NotRead,
    group_id::GroupId,
    processes::ProcessRow,
    queue::QueueDepth,
    sessions::{
        OutboxDepth,
        recent::{MinuteCount, OutcomeCount},
    },
};
use std::{sync::Arc, time::Instant};
use time::OffsetDateTime;

/// When facts were gathered. All operators share them for a moment.
pub(super) type ShownFacts = (Instant, Arc<Facts>);

/// Everything that the overview shows. What could not be read is there with its reason.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) at: OffsetDateTime,
    /// What this gateway says of itself and of its neighbours.
    pub(super) own_problems: Vec<String>,
    /// What may mean something to those who know the proxies before the gateway.
    pub(super) sighting: Option<String>,
    /// The paused groups, by their numbers.
    pub(super) paused: Vec<(GroupId, OffsetDateTime)>,
    pub(super) processes: Result<Vec<ProcessRow>, NotRead>,
    /// `None` while the broker does not answer.
    pub(super) depths: Option<Vec<QueueDepth>>,
    pub(super) outbox: Result<OutboxDepth, NotRead>,
    pub(super) minutes: Result<Vec<MinuteCount>, NotRead>,
    pub(super) in_trouble: Result<Vec<OutcomeCount>, NotRead>,
}

impl Facts {
    /// How many messages a queue has, and how many consumers.
    pub(super) fn depth(&self, queue: &str) -> Option<QueueDepth> {
        self.depths.iter().flatten().find(|depth| depth.queue == queue).copied()
    }
}
