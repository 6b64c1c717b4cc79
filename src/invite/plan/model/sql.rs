//! The statements that move the row, each like its original: a line of SQL, and then the line that it is here.

use super::{
    clock::{MARGIN, TIMEOUT, Time},
    row::{Row, Why},
    world::{Broken, Config, Entry, HeldClaim, Seen, State, Wrong},
};
use crate::sessions::{self, ClaimResult, Status, TextState};
use std::time::Duration;
use uuid::Uuid;

/// `statements::Insert`: answers whether the row went in.
pub fn insert(state: &mut State, config: &Config) -> bool {
    // on conflict do nothing
    if state.row.is_some() {
        return false;
    }
    // Time counts from here, so that runs which differ in nothing else are one.
    state.deadline = state.deadline.map(|at| (at - state.now).max(0));
    state.now = 0;
    let now = state.now;
    state.row = Some(Row {
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

/// `statements::Insert` of a refusal, as `refuse_new` has it: answers whether the row went in.
pub fn insert_refused(state: &mut State, config: &Config, why: Why) -> bool {
    let inserted = insert(state, config);
    if let Some(row) = state.row.as_mut().filter(|_| inserted) {
        *row = Row {
            status: Status::Failed,
            // Null, which nothing asks for once there is an outcome.
            text_state: TextState::Refused,
            attempts: 0,
            lease_until: None,
            error: Some(why),
            ..*row
        };
    }
    inserted
}

/// `statements::claim`. The fence is random; here, as good a name is the number of the try.
pub fn claim(state: &mut State, seen: Seen, write_by: Time, config: &Config) -> Option<HeldClaim> {
    let (now, switched_off) = (state.now, state.switched_off);
    let row = state.row.as_mut().expect("a row that was read");
    let fence = seen.attempts + 1;
    let fenced = row.fence == seen.fence || config.is(Broken::ClaimIgnoresTheFence);
    let over = row.lease_until.unwrap_or(now) <= now;
    // where id = $1 and status = 'sending' and expires_at > now()
    //   and (fence = $3 or (fence = $2 and coalesce(lease_until, now()) <= now() + interval '0.3 s'))
    if !(row.status == Status::Sending && row.expires_at > now && fenced && over) {
        return None;
    }
    //   and (select g.enabled from groups g where g.id = group_id)
    if switched_off && !config.is(Broken::ClaimIgnoresTheGroup) {
        return None;
    }
    *row = Row {
        // set fence = $3, text_state = 'begun', attempts = $4, looks = 0, looked_at = null,
        fence,
        text_state: TextState::Begun,
        attempts: seen.attempts + 1,
        looks: 0,
        looked_at: None,
        // unsettled = unsettled or $5, abandoned = $6,
        unsettled: row.unsettled || seen.unsure_unless_looked,
        abandoned: seen.abandoned,
        // unsure_from = now() + make_interval(secs => $7),
        unsure_from: now + MARGIN + TIMEOUT,
        // lease_until = now() + make_interval(secs => $7 + $8),
        lease_until: Some(now + MARGIN + TIMEOUT + config.settle),
        ..*row
    };
    if switched_off {
        state.wrong = Some(Wrong::ClaimedWhileSwitchedOff);
    }
    let unsettled = seen.unsettled || seen.unsure_unless_looked;
    Some(HeldClaim { fence, attempts: seen.attempts + 1, unsettled, write_by, fresh: false })
}

/// `sessions::ledger_entry`, the code itself.
pub fn entry(fence: u8, result: &ClaimResult) -> Entry {
    let entry = sessions::ledger_entry(Uuid::nil(), fence.into(), result);
    Entry {
        fence,
        status: entry.status,
        text_state: entry.text_state,
        sid: entry.provider_message_id.is_some(),
        why: entry.refusal.as_ref().map(Why::of),
        rest: entry.rest.map(steps),
    }
}

/// Not before a span is over.
fn steps(span: Duration) -> Time {
    let whole = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    Time::try_from(whole).unwrap_or(Time::MAX / 2)
}

/// `statements::Record`: answers whether it was this claim's row still.
pub fn record(row: &mut Row, entry: Entry, now: Time, config: &Config) -> bool {
    let fenced = row.fence == entry.fence || config.is(Broken::RecordIgnoresTheFence);
    // where s.id = o.id and s.fence = o.fence and s.status = 'sending'
    if !(fenced && row.status == Status::Sending) {
        return false;
    }
    *row = Row {
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

/// `statements::missed`.
pub fn missed(row: &mut Row, seen: Seen, now: Time, config: &Config) {
    // where id = $1 and fence = $2 and status = 'sending'
    if row.fence == seen.fence && row.status == Status::Sending {
        // set looks = $3, looked_at = $4
        row.looks = seen.looks + 1;
        row.looked_at = Some(if config.is(Broken::LookCountsWhenRecorded) { now } else { seen.at });
    }
}

/// `statements::accepted`.
pub fn accepted(row: &mut Row) {
    // where id = $1 and status in ('sending', 'unknown') and provider_message_id is null
    if matches!(row.status, Status::Sending | Status::Unknown) && !row.sid {
        // set status = 'sent', text_state = 'accepted', provider_message_id = $2, lease_until = null
        *row = Row {
            status: Status::Sent,
            text_state: TextState::Accepted,
            sid: true,
            lease_until: None,
            ..*row
        };
    }
}

/// `sweep::step`, for a row in `sending` whose session is over: answers whether it moved.
pub fn sweep(row: &mut Row, now: Time) -> bool {
    // where key_held and due_at <= now()
    if row.status != Status::Sending || row.expires_at > now {
        return false;
    }
    // when lease_until > now() then 'in hand'
    if row.lease_until.is_some_and(|until| until > now) {
        return false;
    }
    // when text_state = 'waiting' and not unsettled then 'not texted' else 'unsure'
    if row.text_state == TextState::Waiting && !row.unsettled {
        // status = 'failed', text_state = 'refused', error = $2
        *row = Row {
            status: Status::Failed,
            text_state: TextState::Refused,
            error: Some(Why::of(&sessions::too_late())),
            ..*row
        };
    } else {
        // status = 'unknown', text_state = 'unknown', error = $3
        *row = Row {
            status: Status::Unknown,
            text_state: TextState::Unknown,
            error: Some(Why::of(&sessions::unknown())),
            ..*row
        };
    }
    true
}
