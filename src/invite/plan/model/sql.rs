//! The statements that change the row, copied line by line: a line of SQL, then its line in the model.

use super::{
    clock::{MARGIN, TIMEOUT, Time},
    row::{ModelCode, ModelRow},
    world::{BrokenPromise, ModelClaim, ModelConfig, ModelEntry, ModelState, RemovedGuard, RowSnapshot},
};
use crate::sessions::{self, ClaimResult, Status, TextState};
use std::time::Duration;
use uuid::Uuid;

/// `InsertStatement`. Returns whether the row was inserted.
pub(super) fn insert(state: &mut ModelState, config: &ModelConfig) -> bool {
    // on conflict do nothing
    if state.row.is_some() {
        return false;
    }
    // Time counts from here, so that runs that differ only in when they begin become one.
    state.deadline = state.deadline.map(|at| (at - state.now).max(0));
    state.now = 0;
    let now = state.now;
    state.row = Some(ModelRow {
        // r.status
        status: Status::Sending,
        // (r.ttl is not null)::int
        attempts: 1,
        // r.text_state
        text_state: TextState::Begun,
        // now() + make_interval(secs => $21)
        unsure_from: now + MARGIN + TIMEOUT,
        // now() + make_interval(secs => $21 + $22)
        lease_until: Some(now + MARGIN + TIMEOUT + config.settle),
        // now() + make_interval(secs => r.ttl)
        expires_at: now + config.ttl,
        // now() + make_interval(secs => r.deadline)
        deadline_at: state.deadline,
        // The columns' defaults.
        fence: 0,
        looks: 0,
        looked_at: None,
        unsettled: false,
        abandoned: 0,
        error: None,
        sid: false,
    });
    true
}

/// `InsertStatement` of a refusal, as `refuse_new` calls it. Returns whether the row was inserted.
pub(super) fn insert_refused(state: &mut ModelState, config: &ModelConfig, why: ModelCode) -> bool {
    let inserted = insert(state, config);
    if let Some(row) = state.row.as_mut().filter(|_| inserted) {
        *row = ModelRow {
            status: Status::of_refusal(&why.refusal()),
            // Null in the table. Nothing reads it once there is an outcome.
            text_state: TextState::Refused,
            attempts: 0,
            lease_until: None,
            error: Some(why),
            ..*row
        };
    }
    inserted
}

/// `statements::claim`. The real fence is random. Here the number of the try serves as well.
pub(super) fn claim(
    state: &mut ModelState,
    snapshot: RowSnapshot,
    write_by: Time,
    config: &ModelConfig,
) -> Option<ModelClaim> {
    let (now, switched_off) = (state.now, state.switched_off);
    let row = state.row.as_mut().expect("a row that was read");
    let fence = snapshot.attempts + 1;
    let fenced = row.fence == snapshot.fence || config.lacks(RemovedGuard::ClaimIgnoresTheFence);
    let over = row.lease_until.unwrap_or(now) <= now;
    // where id = $1 and status = 'sending' and expires_at > now()
    //   and (fence = $3 or (fence = $2 and coalesce(lease_until, now()) <= now() + interval '0.3 s'))
    if !(row.status == Status::Sending && row.expires_at > now && fenced && over) {
        return None;
    }
    //   and (select g.enabled and g.paused_at is null from groups g where g.id = group_id); the model pauses no group
    if switched_off && !config.lacks(RemovedGuard::ClaimIgnoresTheGroup) {
        return None;
    }
    *row = ModelRow {
        // set fence = $3, text_state = 'begun', attempts = $4, looks = 0, looked_at = null,
        fence,
        text_state: TextState::Begun,
        attempts: snapshot.attempts + 1,
        looks: 0,
        looked_at: None,
        // unsettled = unsettled or $5, abandoned = $6,
        unsettled: row.unsettled || snapshot.may_have_been_taken,
        abandoned: snapshot.abandoned,
        // unsure_from = now() + make_interval(secs => $7),
        unsure_from: now + MARGIN + TIMEOUT,
        // lease_until = now() + make_interval(secs => $7 + $8),
        lease_until: Some(now + MARGIN + TIMEOUT + config.settle),
        ..*row
    };
    if switched_off {
        state.broken_promise = Some(BrokenPromise::ClaimedWhileSwitchedOff);
    }
    let unsettled = snapshot.unsettled || snapshot.may_have_been_taken;
    Some(ModelClaim { fence, attempts: snapshot.attempts + 1, unsettled, write_by, fresh: false })
}

/// `sessions::ledger_entry`, the code itself.
pub(super) fn entry(fence: u8, result: &ClaimResult) -> ModelEntry {
    let entry = sessions::ledger_entry(Uuid::nil(), fence.into(), result);
    ModelEntry {
        fence,
        status: entry.status,
        text_state: entry.text_state,
        sid: entry.provider_message_id.is_some(),
        why: entry.refusal.as_ref().map(ModelCode::of),
        rest: entry.rest.map(steps),
    }
}

/// Whole seconds, rounded up.
fn steps(span: Duration) -> Time {
    let whole = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    Time::try_from(whole).unwrap_or(Time::MAX / 2)
}

/// `RecordStatement`. Returns whether the row still belonged to this claim.
pub(super) fn record(row: &mut ModelRow, entry: ModelEntry, now: Time, config: &ModelConfig) -> bool {
    let fenced = row.fence == entry.fence || config.lacks(RemovedGuard::RecordIgnoresTheFence);
    // where s.id = o.id and s.fence = o.fence and s.status = 'sending'
    if !(fenced && row.status == Status::Sending) {
        return false;
    }
    *row = ModelRow {
        // set status = o.status, text_state = o.text_state, provider_message_id = o.provider_message_id, error = o.error,
        status: entry.status,
        text_state: entry.text_state,
        sid: entry.sid,
        error: entry.why,
        // lease_until = now() + make_interval(secs => o.rest),
        lease_until: entry.rest.map(|rest| now.saturating_add(rest)),
        // unsure_from = case when o.text_state = 'unknown' and s.text_state = 'begun' then least(s.unsure_from, now())
        //               else s.unsure_from end,
        unsure_from: match (entry.text_state, row.text_state) {
            (TextState::Unknown, TextState::Begun) => row.unsure_from.min(now),
            _ => row.unsure_from,
        },
        ..*row
    };
    true
}

/// `statements::record_miss`.
pub(super) fn missed(row: &mut ModelRow, snapshot: RowSnapshot, now: Time, config: &ModelConfig) {
    // where id = $1 and fence = $2 and status = 'sending'
    if row.fence == snapshot.fence && row.status == Status::Sending {
        // set looks = $3, looked_at = $4
        row.looks = snapshot.looks + 1;
        row.looked_at =
            Some(if config.lacks(RemovedGuard::LookCountsWhenRecorded) { now } else { snapshot.at });
    }
}

/// `statements::accepted`.
pub(super) fn accepted(row: &mut ModelRow) {
    // where id = $1 and status in ('sending', 'unknown') and provider_message_id is null
    if matches!(row.status, Status::Sending | Status::Unknown) && !row.sid {
        // set status = 'sent', text_state = 'accepted', provider_message_id = $2, lease_until = null
        *row = ModelRow {
            status: Status::Sent,
            text_state: TextState::Accepted,
            sid: true,
            lease_until: None,
            ..*row
        };
    }
}

/// `sweep::step`, for a row in `sending` whose session is over. Returns whether the row changed.
pub(super) fn sweep(row: &mut ModelRow, now: Time) -> bool {
    // where key_held and due_at <= now()
    if row.status != Status::Sending || row.expires_at > now {
        return false;
    }
    // when lease_until > now() then 'in flight'
    if row.lease_until.is_some_and(|until| until > now) {
        return false;
    }
    // when text_state = 'waiting' and not unsettled then 'not texted' else 'unsure'
    if row.text_state == TextState::Waiting && !row.unsettled {
        // status = 'failed', text_state = 'refused', error = $2
        *row = ModelRow {
            status: Status::Failed,
            text_state: TextState::Refused,
            error: Some(ModelCode::of(&sessions::too_late())),
            ..*row
        };
    } else {
        // status = 'unknown', text_state = 'unknown', error = $3
        *row = ModelRow {
            status: Status::Unknown,
            text_state: TextState::Unknown,
            error: Some(ModelCode::of(&sessions::unknown())),
            ..*row
        };
    }
    true
}
