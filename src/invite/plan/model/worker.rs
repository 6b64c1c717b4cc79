//! What can happen next: a worker's effect, in the order of `process.rs` and `pursue.rs`; a fault; an answer of the provider;
//! a step of time.

use super::{
    super::{GroupSwitch, JITTER, NextStep, after_try_jittered, next_step},
    clock::{MARGIN, TIMEOUT, Time},
    row::{ModelCode, ModelReply, ModelRow},
    sql,
    world::{
        BrokenPromise, Effect, MESSAGES, ModelClaim, ModelConfig, ModelDelivery, ModelEntry, ModelState,
        ModelWorker, RemovedGuard, RowSnapshot,
    },
};
use crate::{
    refusal::{Code, Refusal},
    sessions::{ClaimResult, SessionRow, Status, too_late},
    sms::{RetryReason, TryResult},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    Start,
    /// An idle worker gets the message: for the first time, or again.
    Deliver(ModelDelivery),
    /// A worker carries out its next effect.
    Run(Effect),
    /// The provider answers a worker's request. With `took` there is a text now.
    Answer {
        took: bool,
        by: ProviderAnswer,
    },
    /// A worker dies before this effect.
    Crash(Effect),
    /// A worker stops before this effect, and another gets its message.
    Stop(Effect),
    /// A stopped worker continues.
    Resume(Effect),
    /// The provider decides about the request of a worker that died.
    Orphan {
        took: bool,
    },
    Sweep,
    /// The operator switches the group off.
    SwitchOff,
    Tick,
}

impl Transition {
    pub(super) fn is_fault(self) -> bool {
        matches!(self, Self::Crash(_) | Self::Stop(_) | Self::SwitchOff)
    }
}

/// How the provider answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProviderAnswer {
    Accepted,
    Later,
    Refused,
    /// No answer arrives.
    Silence,
}

impl ProviderAnswer {
    fn answer(self) -> TryResult {
        match self {
            Self::Accepted => TryResult::Accepted { sid: "SM1".to_owned() },
            Self::Later => TryResult::Later { status: None, retry_after: None, why: RetryReason::Throttled },
            Self::Refused => TryResult::Refused(Refusal::new(Code::ProviderRejected, "")),
            Self::Silence => TryResult::PerhapsSent { why: String::new() },
        }
    }
}

/// Calls `each` with every state that can follow.
pub(super) fn follow(
    state: &ModelState,
    config: &ModelConfig,
    each: &mut impl FnMut(Transition, ModelState),
) {
    for (i, worker) in state.workers.iter().enumerate() {
        if worker.next == Effect::Nothing {
            // A second idle worker adds nothing.
            if i == 0 || state.workers[0].next != Effect::Nothing {
                deliver(state, i, each);
            }
            continue;
        }
        if let Effect::Answer { claim, .. } = worker.next {
            answer(state, i, claim, config, each);
        } else if !worker.stopped {
            run(state, i, config, each);
        }
        if worker.stopped {
            let mut after = *state;
            after.workers[i].stopped = false;
            each(Transition::Resume(worker.next), after);
        }
        faults(state, i, each);
    }
    if let Some(row) = state.row {
        let mut after = ModelState { row: Some(row), ..*state };
        if after.row.as_mut().is_some_and(|row| sql::sweep(row, state.now)) {
            each(Transition::Sweep, after);
        }
    }
    if state.orphan.is_some() {
        let mut after = ModelState { orphan: None, ..*state };
        each(Transition::Orphan { took: false }, after);
        after.accept();
        each(Transition::Orphan { took: true }, after);
    }
    if config.switches_off && !state.switched_off {
        each(Transition::SwitchOff, ModelState { switched_off: true, ..*state });
    }
    if may_pass(state, config) {
        each(Transition::Tick, ModelState { now: state.now + 1, ..*state });
    }
}

fn deliver(state: &ModelState, i: usize, each: &mut impl FnMut(Transition, ModelState)) {
    let mut taken = |held, next, after: ModelState| {
        let mut after = after;
        after.workers[i] = ModelWorker { next, held, stopped: false };
        each(Transition::Deliver(held), after);
    };
    if state.published {
        // A first delivery does not look for a row.
        taken(ModelDelivery::First, Effect::Open, ModelState { published: false, ..*state });
    }
    if state.again > 0 {
        taken(ModelDelivery::Again, Effect::Read, ModelState { again: state.again - 1, ..*state });
    }
}

/// One effect of a worker that runs.
fn run(state: &ModelState, i: usize, config: &ModelConfig, each: &mut impl FnMut(Transition, ModelState)) {
    let effect = state.workers[i].next;
    let mut then = |after: ModelState, next: Effect| {
        let mut after = after;
        after.workers[i].next = next;
        each(Transition::Run(effect), after);
    };
    let (mut after, now) = (*state, state.now);
    match effect {
        Effect::Nothing | Effect::Answer { .. } => {}
        Effect::Open => open(state, i, config, &mut then),
        Effect::Insert { write_by } => {
            if sql::insert(&mut after, config) {
                let write_by = write_by - now;
                let claim = ModelClaim { fence: 0, attempts: 1, unsettled: false, write_by, fresh: true };
                then(after, Effect::Write(claim));
            } else {
                repeat(&mut after, i, false, config);
                then(after, Effect::Read);
            }
        }
        // `recall`, `resume` or `reread`, then `next_step`.
        Effect::Read | Effect::ReadSwitchedOff => match state.row {
            None => then(after, Effect::Open),
            Some(row) => {
                let switch = if effect == Effect::Read { GroupSwitch::On } else { GroupSwitch::Off };
                let next = decide(&mut after, &row.session_row(now), switch, config);
                then(after, next);
            }
        },
        Effect::Look(snapshot) => {
            if state.texts > 0 {
                then(after, Effect::Accept);
            }
            if state.texts == 0 || now < state.accepted_at + config.lag {
                then(after, Effect::Missed(snapshot));
            }
        }
        Effect::BeginClaim(_) if state.switched_off => then(after, Effect::ReadSwitchedOff),
        Effect::BeginClaim(snapshot) => then(after, Effect::Claim { snapshot, write_by: now + MARGIN }),
        Effect::Claim { snapshot, write_by } => {
            let next = sql::claim(&mut after, snapshot, write_by, config).map_or(Effect::Read, Effect::Write);
            then(after, next);
        }
        Effect::Write(claim) => write(state, claim, config, &mut then),
        // Publishes a copy, then acknowledges.
        Effect::Copy => {
            after.again += 1;
            then(after, Effect::Ack);
        }
        Effect::Reply(reply) => {
            if after.reply.is_some_and(|before| before != reply) {
                after.broken_promise = Some(BrokenPromise::TwoRepliesDiffer);
            }
            after.reply = Some(reply);
            then(after, Effect::Ack);
        }
        Effect::Ack => {
            after.workers[i] = ModelWorker::IDLE;
            then(after, Effect::Nothing);
        }
        Effect::Missed(_) | Effect::Accept | Effect::Close(_) | Effect::Record(_) => {
            let Some(row) = after.row.as_mut() else { unreachable!("a row is never deleted") };
            let next = update(row, effect, now, config);
            then(after, next);
        }
    }
}

/// `process`, up to `Sessions::open`.
fn open(state: &ModelState, i: usize, config: &ModelConfig, then: &mut impl FnMut(ModelState, Effect)) {
    let refusals =
        [(state.switched_off, ModelCode::SwitchedOff), (state.is_late(), ModelCode::of(&too_late()))];
    for (_, why) in refusals.into_iter().filter(|(applies, _)| *applies) {
        // `refuse_new`, or the row that owns the id.
        let mut after = *state;
        let inserted = sql::insert_refused(&mut after, config, why);
        let next = if inserted { Effect::Reply(ModelReply::Refused(why)) } else { Effect::Read };
        repeat(&mut after, i, inserted, config);
        then(after, next);
    }
    // In time, or it was when the worker checked.
    let write_by = if state.row.is_some() { 0 } else { state.now + MARGIN };
    then(*state, Effect::Insert { write_by });
}

/// A statement on the existing row, and the worker's effect after it.
fn update(row: &mut ModelRow, effect: Effect, now: Time, config: &ModelConfig) -> Effect {
    match effect {
        Effect::Missed(snapshot) => sql::missed(row, snapshot, now, config),
        Effect::Accept => sql::accepted(row),
        Effect::Close(entry) => {
            sql::record(row, entry, now, config);
        }
        Effect::Record(entry) => return recorded(sql::record(row, entry, now, config), entry),
        _ => unreachable!("{effect:?}"),
    }
    Effect::Read
}

/// `Sessions::repeat`, when a row owns the id. A row that is younger than the delivery answers it, as a row answers a
/// redelivery.
fn repeat(state: &mut ModelState, i: usize, inserted: bool, config: &ModelConfig) {
    let released = state.row.is_some_and(|row| matches!(row.status, Status::Rejected | Status::Failed));
    let first =
        matches!(state.workers[i].held, ModelDelivery::First | ModelDelivery::Withdrawn { first: true });
    let new_publish = released && first && config.lacks(RemovedGuard::WithdrawnCountsAsNewPublish);
    if !inserted && (new_publish || config.lacks(RemovedGuard::NoMessageId)) {
        state.broken_promise = Some(BrokenPromise::AnotherRowForOnePublish);
    }
}

/// `pursue`, up to its next effect.
fn decide(state: &mut ModelState, row: &SessionRow, switch: GroupSwitch, config: &ModelConfig) -> Effect {
    let small = |n: i32| u8::try_from(n).unwrap_or(u8::MAX);
    let fence = u8::try_from(row.fence).unwrap_or(u8::MAX);
    let empty = RowSnapshot {
        fence,
        attempts: 0,
        looks: 0,
        unsettled: false,
        may_have_been_taken: false,
        abandoned: 0,
        at: 0,
    };
    match next_step(row, &config.policy(), switch) {
        NextStep::Answer => {
            let Some(outcome) = row.outcome() else {
                state.broken_promise = Some(BrokenPromise::NoOutcomeToAnswer);
                return Effect::Nothing;
            };
            Effect::Reply(ModelReply::of(&outcome))
        }
        NextStep::TryUnderWay(_) | NextStep::Wait(_) => Effect::Copy,
        NextStep::Close(result) => Effect::Close(sql::entry(fence, &result)),
        NextStep::Look => Effect::Look(RowSnapshot { looks: small(row.looks), at: state.now, ..empty }),
        NextStep::Send => Effect::BeginClaim(RowSnapshot {
            attempts: small(row.attempts),
            unsettled: row.unsettled,
            may_have_been_taken: row.may_have_been_taken(),
            abandoned: small(row.abandoned + i32::from(row.is_abandoned())),
            ..empty
        }),
        NextStep::GiveUp => unreachable!("there are not that many crashes"),
    }
}

/// `hand_over`, up to the socket.
fn write(
    state: &ModelState,
    claim: ModelClaim,
    config: &ModelConfig,
    then: &mut impl FnMut(ModelState, Effect),
) {
    if claim.fresh && state.is_late() {
        // Both ways are possible: the worker checks here, or did before it was stopped.
        then(*state, Effect::Record(sql::entry(claim.fence, &ClaimResult::Refused(too_late()))));
    }
    if state.now <= claim.write_by || config.lacks(RemovedGuard::NoCheckBeforeTheWrite) {
        let claim = ModelClaim { write_by: 0, fresh: false, ..claim };
        let after = ModelState { posts: state.posts + 1, ..*state };
        then(after, Effect::Answer { claim, until: state.now + TIMEOUT });
    } else {
        then(*state, after(TryResult::Withheld, state, claim, config, JITTER.start));
    }
}

fn after(
    answer: TryResult,
    state: &ModelState,
    claim: ModelClaim,
    config: &ModelConfig,
    jitter: f64,
) -> Effect {
    let until = |end: Option<Time>| end.map_or(config.ttl, |end| end.min(config.ttl)) - state.now;
    let claimed = claim.claim(until(state.deadline));
    Effect::Record(sql::entry(claim.fence, &after_try_jittered(answer, &claimed, &config.policy(), jitter)))
}

/// Every answer of the provider to a worker's request.
fn answer(
    state: &ModelState,
    i: usize,
    claim: ModelClaim,
    config: &ModelConfig,
    each: &mut impl FnMut(Transition, ModelState),
) {
    let answers = [
        (true, ProviderAnswer::Accepted),
        (true, ProviderAnswer::Silence),
        (false, ProviderAnswer::Silence),
        (false, ProviderAnswer::Later),
        (false, ProviderAnswer::Refused),
    ];
    for (took, by) in answers {
        let mut known = *state;
        if took {
            known.accept();
        }
        let [least, most] =
            [JITTER.start, JITTER.end].map(|jitter| after(by.answer(), state, claim, config, jitter));
        known.workers[i].next = least;
        each(Transition::Answer { took, by }, known);
        if most != least {
            known.workers[i].next = most;
            each(Transition::Answer { took, by }, known);
        }
    }
}

/// `Sessions::record` and `hand_over`.
fn recorded(took: bool, entry: ModelEntry) -> Effect {
    match (took, entry.status, entry.why) {
        (true, Status::Sending, _) => Effect::Copy,
        (true, _, Some(why)) => Effect::Reply(ModelReply::Refused(why)),
        (true, _, None) => Effect::Reply(ModelReply::Sent),
        (false, ..) if entry.sid => Effect::Accept,
        (false, ..) => Effect::Read,
    }
}

fn faults(state: &ModelState, i: usize, each: &mut impl FnMut(Transition, ModelState)) {
    let worker = state.workers[i];
    let given_back = ModelState { again: state.again + u8::from(worker.holds()), ..*state };
    if state.messages() > MESSAGES {
        return;
    }
    if state.crashes_left > 0 {
        let mut after = ModelState { crashes_left: state.crashes_left - 1, ..given_back };
        after.workers[i] = ModelWorker::IDLE;
        if let Effect::Answer { until, .. } = worker.next {
            if state.orphan.is_some() {
                // The model has room for one orphan: one of the two is decided at once.
                let mut took = after;
                took.accept();
                each(Transition::Crash(worker.next), took);
            }
            after.orphan = Some(until);
        }
        each(Transition::Crash(worker.next), after);
    }
    if state.stops_left > 0 && !worker.stopped {
        let mut after = ModelState { stops_left: state.stops_left - 1, ..given_back };
        let held = match worker.held {
            ModelDelivery::First => ModelDelivery::Withdrawn { first: true },
            ModelDelivery::Again => ModelDelivery::Withdrawn { first: false },
            other => other,
        };
        after.workers[i] = ModelWorker { held, stopped: true, ..worker };
        if after.messages() <= MESSAGES {
            each(Transition::Stop(worker.next), after);
        }
    }
}

/// Time passes only while every worker is stopped, idle or waiting for the provider.
fn may_pass(state: &ModelState, config: &ModelConfig) -> bool {
    let waits = |worker: &ModelWorker| match worker.next {
        Effect::Nothing => true,
        Effect::Answer { until, .. } => until > state.now,
        _ => worker.stopped,
    };
    // Before there is a row, time matters only for the deadline and for a stopped worker.
    let counts = match state.row {
        Some(_) => state.now < config.end(),
        None => state.now <= MARGIN.max(config.deadline.unwrap_or(0)),
    };
    counts && state.workers.iter().all(waits) && state.orphan.is_none_or(|until| until > state.now)
}
