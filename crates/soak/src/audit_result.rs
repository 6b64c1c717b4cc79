//! What an audit finds: counts, and anomalies by their kind.

use std::collections::BTreeMap;
use strum::{IntoStaticStr, VariantArray};

/// The kinds of anomalies, with their names in the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr, VariantArray)]
pub(crate) enum AnomalyKind {
    /// The broker confirmed the request, and there is no reply.
    #[strum(serialize = "lost")]
    Lost,
    /// More than one text for one invite.
    #[strum(serialize = "texted twice")]
    TextedTwice,
    /// Two different replies to one request, or two outcomes of one id.
    #[strum(serialize = "conflicting replies")]
    ConflictingReplies,
    /// A reply that claims a text that does not exist, or denies one that does.
    #[strum(serialize = "replies that contradict the texts")]
    ContradictedReply,
    /// A reply that this invite cannot have.
    #[strum(serialize = "unexpected outcomes")]
    UnexpectedOutcome,
    /// A dead letter that is not the reply to an orphan.
    #[strum(serialize = "unexpected dead letters")]
    UnexpectedDeadLetter,
    /// A row that contradicts the reply.
    #[strum(serialize = "rows that contradict the replies")]
    ContradictedRow,
    /// A refusal that has two rows. Its replies are equal, so this does not break a promise.
    #[strum(serialize = "refusals with two rows")]
    SurplusRefusal,
    /// An invite without an id that two workers began: one had lost the message and did not know it yet (docs/DELIVERY.md).
    #[strum(serialize = "without an id, begun twice")]
    BegunTwice,
    /// The row vanished with an asynchronous standby's promotion: a sent text has no row, a repeat another outcome.
    #[strum(serialize = "rows that the database forgot")]
    Forgotten,
    /// A reply or a text that belongs to no invite.
    #[strum(serialize = "strays")]
    Stray,
    /// A step of a session without its event, or events in the wrong order.
    #[strum(serialize = "missing or misordered events")]
    EventMismatch,
}

impl AnomalyKind {
    pub(crate) fn breaks_a_promise(self) -> bool {
        !matches!(self, Self::SurplusRefusal | Self::BegunTwice | Self::Forgotten)
    }

    pub(crate) fn name(self) -> &'static str {
        self.into()
    }
}

#[derive(Debug)]
pub(crate) struct Anomaly {
    pub kind: AnomalyKind,
    /// The index of its invite.
    pub invite: Option<usize>,
    pub detail: String,
}

/// The counts and the anomalies of a run.
#[derive(Debug, Default)]
pub(crate) struct AuditResult {
    pub published: usize,
    pub answered: usize,
    /// Answered invites whose first request went over HTTP.
    pub over_http: usize,
    /// Messages that carried invites, and the replies to them.
    pub messages: usize,
    pub replies: usize,
    /// Messages without a confirm and without a reply. The broker may never have received them.
    pub unconfirmed: usize,
    /// Invites by their outcome.
    pub outcomes: BTreeMap<String, usize>,
    /// Confirmed messages without a reply and without a row.
    pub jepsen_lost: usize,
    /// Unconfirmed messages that were carried out all the same.
    pub jepsen_recovered: usize,
    pub texts: usize,
    pub dead_expected: usize,
    /// Received events, and how many of them were repeats.
    pub events: usize,
    pub events_repeated: usize,
    pub anomalies: Vec<Anomaly>,
}

impl AuditResult {
    pub(crate) fn count(&self, kind: AnomalyKind) -> usize {
        self.anomalies.iter().filter(|anomaly| anomaly.kind == kind).count()
    }

    pub(crate) fn add(
        &mut self,
        kind: AnomalyKind,
        invite: impl Into<Option<usize>>,
        detail: impl Into<String>,
    ) {
        self.anomalies.push(Anomaly { kind, invite: invite.into(), detail: detail.into() });
    }
}
