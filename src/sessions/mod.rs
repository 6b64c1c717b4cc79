//! The `sessions` table, as verbs. Every statement on it is in this folder.

mod agents;
mod batch;
mod claim;
mod claim_times;
mod columns;
mod content_hash;
pub(crate) mod erasure;
mod gate;
mod insert;
mod ledger;
mod look_first;
pub(crate) mod lookup;
mod markers;
mod measure;
pub(crate) mod metrics;
mod new_row;
mod open;
mod outbox;
mod paused;
mod permission;
pub(crate) mod portions;
mod receipts;
pub(crate) mod recent;
mod refusals;
pub(crate) mod removal;
mod resume;
pub(crate) mod retention;
mod rewinds;
mod row;
mod server_run;
mod statements;
mod status;
pub(crate) mod steps;
mod store;
mod sweep;
pub(crate) mod texts;
pub(crate) mod trace;
mod visitors;

pub(crate) use agents::{EndResult, LiveSession, end, join, look_up};
#[cfg(test)]
pub(crate) use claim::ledger_entry;
pub(crate) use claim::{Claim, ClaimResult};
pub(crate) use claim_times::ClaimTimes;
pub(crate) use content_hash::ContentHasher;
pub(crate) use ledger::Continuation;
pub(crate) use look_first::Losses;
pub(crate) use markers::{Advance, Marker, MarkerTable};
pub(crate) use measure::{OutboxDepth, busiest_groups, measure_keys, measure_outbox, outbox_depth};
pub use new_row::RequestRecord;
pub(crate) use new_row::{FirstStep, NewSession};
pub(crate) use open::{Duplicate, OpenResult, RefuseResult};
pub(crate) use outbox::{EVENTS_IN_A_BATCH, Outbox, SessionEvent};
pub(crate) use paused::{PausedGroups, waiting, waiting_in_group, wake};
pub(crate) use permission::{Recipient, SendPermission};
pub(crate) use receipts::{ReportResult, TextReport, exists, note_receipt};
pub(crate) use refusals::{opted_out, too_late, unknown};
pub(crate) use resume::{OpenInvite, OpenInvites, ResumeRound};
pub(crate) use retention::retain;
pub(crate) use rewinds::Rewinds;
pub use row::{Outcome, SentSession};
pub(crate) use row::{Resume, SessionRow, TextParts};
pub(crate) use status::{Status, TextState};
pub(crate) use store::{ResumedRow, Sessions};
pub(crate) use sweep::sweep;
pub(crate) use visitors::{VisitedSession, visit};

/// The statements themselves, for the test that compares them with the model (`invite/plan/model/`).
#[cfg(test)]
pub(crate) mod bare_statements {
    pub(crate) use super::{
        batch::Statement,
        insert::{InsertResult, InsertStatement},
        new_row::NewRow,
        receipts::note,
        statements::{RecordStatement, RowLookup, claim, find, may_send, record_miss},
        sweep::step as sweep,
    };
}
