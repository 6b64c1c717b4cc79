//! What can happen next: a worker's next effect, in the order of `process.rs` and `pursue.rs`; a fault; the provider; time.

use super::{
    super::{JITTER, Step, Switch, after_try_jittered, next_step},
    clock::{MARGIN, TIMEOUT, Time},
    row::{Row, Told, Why},
    sql,
    world::{Broken, Config, Entry, Held, HeldClaim, MESSAGES, Next, Seen, State, Worker, Wrong},
};
use crate::{
    refusal::{Code, Refusal},
    sessions::{ClaimResult, SessionRow, Status, too_late},
    sms::{Answer, Later},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Start,
    /// An idle worker gets the message: as it was published, or again.
    Takes(Held),
    Does(Next),
    /// Its request is answered so; `took` says whether there is a text now.
    Answered {
        took: bool,
        by: Word,
    },
    Dies(Next),
    /// Stands still before that; its message goes to another.
    Stops(Next),
    GoesOn(Next),
    /// The request of a worker that died is taken, or is not.
    Orphan {
        took: bool,
    },
    Sweep,
    /// The operator switches the group off.
    SwitchOff,
    Tick,
}

impl Event {
    pub fn is_fault(self) -> bool {
        matches!(self, Self::Dies(_) | Self::Stops(_) | Self::SwitchOff)
    }
}

/// The provider's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Accepted,
    Later,
    Refused,
    /// None that arrives.
    Silence,
}

impl Word {
    fn answer(self) -> Answer {
        match self {
            Self::Accepted => Answer::Accepted { sid: "SM1".to_owned() },
            Self::Later => Answer::Later { retry_after: None, why: Later::Throttled },
            Self::Refused => Answer::Refused(Refusal::new(Code::ProviderRejected, "")),
            Self::Silence => Answer::PerhapsSent { why: String::new() },
        }
    }
}

/// Every state that can follow.
pub fn follow(state: &State, config: &Config, each: &mut impl FnMut(Event, State)) {
    for (i, worker) in state.workers.iter().enumerate() {
        if worker.next == Next::Nothing {
            // Two idle workers are as good as one.
            if i == 0 || state.workers[0].next != Next::Nothing {
                takes(state, i, each);
            }
            continue;
        }
        if let Next::Answer { claim, .. } = worker.next {
            answered(state, i, claim, config, each);
        } else if !worker.stopped {
            does(state, i, config, each);
        }
        if worker.stopped {
            let mut after = *state;
            after.workers[i].stopped = false;
            each(Event::GoesOn(worker.next), after);
        }
        faults(state, i, each);
    }
    if let Some(row) = state.row {
        let mut after = State { row: Some(row), ..*state };
        if after.row.as_mut().is_some_and(|row| sql::sweep(row, state.now)) {
            each(Event::Sweep, after);
        }
    }
    if state.orphan.is_some() {
        let mut after = State { orphan: None, ..*state };
        each(Event::Orphan { took: false }, after);
        after.accept();
        each(Event::Orphan { took: true }, after);
    }
    if config.switches_off && !state.switched_off {
        each(Event::SwitchOff, State { switched_off: true, ..*state });
    }
    if may_pass(state, config) {
        each(Event::Tick, State { now: state.now + 1, ..*state });
    }
}

fn takes(state: &State, i: usize, each: &mut impl FnMut(Event, State)) {
    let mut taken = |held, next, after: State| {
        let mut after = after;
        after.workers[i] = Worker { next, held, stopped: false };
        each(Event::Takes(held), after);
    };
    if state.published {
        // What was never delivered before is not looked for.
        taken(Held::First, Next::Open, State { published: false, ..*state });
    }
    if state.again > 0 {
        taken(Held::Again, Next::Read, State { again: state.again - 1, ..*state });
    }
}

/// One effect of a worker that is in order.
fn does(state: &State, i: usize, config: &Config, each: &mut impl FnMut(Event, State)) {
    let doing = state.workers[i].next;
    let mut then = |after: State, next: Next| {
        let mut after = after;
        after.workers[i].next = next;
        each(Event::Does(doing), after);
    };
    let (mut after, now) = (*state, state.now);
    match doing {
        Next::Nothing | Next::Answer { .. } => {}
        Next::Open => opens(state, i, config, &mut then),
        Next::Insert { write_by } => {
            if sql::insert(&mut after, config) {
                let write_by = write_by - now;
                let claim = HeldClaim { fence: 0, attempts: 1, unsettled: false, write_by, fresh: true };
                then(after, Next::Write(claim));
            } else {
                repeat(&mut after, i, false, config);
                then(after, Next::Read);
            }
        }
        // `recall`, `resume` or `again`, and what the row asks for.
        Next::Read | Next::ReadSwitchedOff => match state.row {
            None => then(after, Next::Open),
            Some(row) => {
                let switch = if doing == Next::Read { Switch::On } else { Switch::Off };
                let next = decide(&mut after, &row.standing(now), switch, config);
                then(after, next);
            }
        },
        Next::Look(seen) => {
            if state.texts > 0 {
                then(after, Next::Accept);
            }
            if state.texts == 0 || now < state.accepted_at + config.lag {
                then(after, Next::Missed(seen));
            }
        }
        Next::BeginClaim(_) if state.switched_off => then(after, Next::ReadSwitchedOff),
        Next::BeginClaim(seen) => then(after, Next::Claim { seen, write_by: now + MARGIN }),
        Next::Claim { seen, write_by } => {
            let next = sql::claim(&mut after, seen, write_by, config).map_or(Next::Read, Next::Write);
            then(after, next);
        }
        Next::Write(claim) => write(state, claim, config, &mut then),
        // Published once more, then acknowledged.
        Next::Copy => {
            after.again += 1;
            then(after, Next::Ack);
        }
        Next::Reply(told) => {
            if after.told.is_some_and(|before| before != told) {
                after.wrong = Some(Wrong::TwoRepliesDiffer);
            }
            after.told = Some(told);
            then(after, Next::Ack);
        }
        Next::Ack => {
            after.workers[i] = Worker::IDLE;
            then(after, Next::Nothing);
        }
        Next::Missed(_) | Next::Accept | Next::Close(_) | Next::Record(_) => {
            let Some(row) = after.row.as_mut() else { unreachable!("a row is never deleted") };
            let next = updates(row, doing, now, config);
            then(after, next);
        }
    }
}

/// `process`, up to `Sessions::open`.
fn opens(state: &State, i: usize, config: &Config, then: &mut impl FnMut(State, Next)) {
    let refusals = [(state.switched_off, Why::SwitchedOff), (state.is_late(), Why::of(&too_late()))];
    for (_, why) in refusals.into_iter().filter(|(applies, _)| *applies) {
        // `refuse_new`, or what the id stands for.
        let mut after = *state;
        let inserted = sql::insert_refused(&mut after, config, why);
        let next = if inserted { Next::Reply(Told::Refused(why)) } else { Next::Read };
        repeat(&mut after, i, inserted, config);
        then(after, next);
    }
    // In time; or so it was when that was looked at.
    let write_by = if state.row.is_some() { 0 } else { state.now + MARGIN };
    then(*state, Next::Insert { write_by });
}

/// A statement on the row that is there, and what its worker does after it.
fn updates(row: &mut Row, doing: Next, now: Time, config: &Config) -> Next {
    match doing {
        Next::Missed(seen) => sql::missed(row, seen, now, config),
        Next::Accept => sql::accepted(row),
        Next::Close(entry) => {
            sql::record(row, entry, now, config);
        }
        Next::Record(entry) => return recorded(sql::record(row, entry, now, config), entry),
        _ => unreachable!("{doing:?}"),
    }
    Next::Read
}

/// `Sessions::repeat`, when a row stands for the id. A row that is younger than the delivery answers for it, as one does for
/// a redelivery.
fn repeat(state: &mut State, i: usize, inserted: bool, config: &Config) {
    let released = state.row.is_some_and(|row| matches!(row.status, Status::Rejected | Status::Failed));
    let first = matches!(state.workers[i].held, Held::First | Held::TakenBack { first: true });
    let anew = released && first && config.is(Broken::TakenBackIsPublishedAnew);
    if !inserted && (anew || config.is(Broken::NoMessageId)) {
        state.wrong = Some(Wrong::AnotherRowForOnePublish);
    }
}

/// `pursue`, up to the next effect.
fn decide(state: &mut State, row: &SessionRow, switch: Switch, config: &Config) -> Next {
    let small = |n: i32| u8::try_from(n).unwrap_or(u8::MAX);
    let fence = u8::try_from(row.fence).unwrap_or(u8::MAX);
    let nothing = Seen {
        fence,
        attempts: 0,
        looks: 0,
        unsettled: false,
        unsure_unless_looked: false,
        abandoned: 0,
        at: 0,
    };
    match next_step(row, &config.policy(), switch) {
        Step::Answer => {
            let Some(outcome) = row.outcome() else {
                state.wrong = Some(Wrong::NoOutcomeToAnswer);
                return Next::Nothing;
            };
            Next::Reply(Told::of(&outcome))
        }
        Step::InHand(_) | Step::Wait(_) => Next::Copy,
        Step::Close(result) => Next::Close(sql::entry(fence, &result)),
        Step::Look => Next::Look(Seen { looks: small(row.looks), at: state.now, ..nothing }),
        Step::Send => Next::BeginClaim(Seen {
            attempts: small(row.attempts),
            unsettled: row.unsettled,
            unsure_unless_looked: row.unsure_unless_looked(),
            abandoned: small(row.abandoned + i32::from(row.is_abandoned())),
            ..nothing
        }),
        Step::GiveUp => unreachable!("there are not that many crashes"),
    }
}

/// `hand_over`, up to the socket.
fn write(state: &State, claim: HeldClaim, config: &Config, then: &mut impl FnMut(State, Next)) {
    if claim.fresh && state.is_late() {
        // Looked at once more, or before this worker stood still.
        then(*state, Next::Record(sql::entry(claim.fence, &ClaimResult::Refused(too_late()))));
    }
    if state.now <= claim.write_by || config.is(Broken::NoCheckBeforeTheWrite) {
        let claim = HeldClaim { write_by: 0, fresh: false, ..claim };
        let after = State { posts: state.posts + 1, ..*state };
        then(after, Next::Answer { claim, until: state.now + TIMEOUT });
    } else {
        then(*state, after(Answer::Withheld, state, claim, config, JITTER.start));
    }
}

fn after(answer: Answer, state: &State, claim: HeldClaim, config: &Config, jitter: f64) -> Next {
    let until = |end: Option<Time>| end.map_or(config.ttl, |end| end.min(config.ttl)) - state.now;
    let claimed = claim.claim(until(state.deadline));
    Next::Record(sql::entry(claim.fence, &after_try_jittered(answer, &claimed, &config.policy(), jitter)))
}

/// What the provider makes of a request in hand.
fn answered(state: &State, i: usize, claim: HeldClaim, config: &Config, each: &mut impl FnMut(Event, State)) {
    let words = [
        (true, Word::Accepted),
        (true, Word::Silence),
        (false, Word::Silence),
        (false, Word::Later),
        (false, Word::Refused),
    ];
    for (took, by) in words {
        let mut known = *state;
        if took {
            known.accept();
        }
        let [least, most] =
            [JITTER.start, JITTER.end].map(|jitter| after(by.answer(), state, claim, config, jitter));
        known.workers[i].next = least;
        each(Event::Answered { took, by }, known);
        if most != least {
            known.workers[i].next = most;
            each(Event::Answered { took, by }, known);
        }
    }
}

/// `Sessions::record` and `hand_over`.
fn recorded(took: bool, entry: Entry) -> Next {
    match (took, entry.status, entry.why) {
        (true, Status::Sending, _) => Next::Copy,
        (true, _, Some(why)) => Next::Reply(Told::Refused(why)),
        (true, _, None) => Next::Reply(Told::Sent),
        (false, ..) if entry.sid => Next::Accept,
        (false, ..) => Next::Read,
    }
}

fn faults(state: &State, i: usize, each: &mut impl FnMut(Event, State)) {
    let worker = state.workers[i];
    let given_back = State { again: state.again + u8::from(worker.holds()), ..*state };
    if state.messages() > MESSAGES {
        return;
    }
    if state.crashes_left > 0 {
        let mut after = State { crashes_left: state.crashes_left - 1, ..given_back };
        after.workers[i] = Worker::IDLE;
        if let Next::Answer { until, .. } = worker.next {
            if state.orphan.is_some() {
                // One of the two is decided at once.
                let mut took = after;
                took.accept();
                each(Event::Dies(worker.next), took);
            }
            after.orphan = Some(until);
        }
        each(Event::Dies(worker.next), after);
    }
    if state.stops_left > 0 && !worker.stopped {
        let mut after = State { stops_left: state.stops_left - 1, ..given_back };
        let held = match worker.held {
            Held::First => Held::TakenBack { first: true },
            Held::Again => Held::TakenBack { first: false },
            other => other,
        };
        after.workers[i] = Worker { held, stopped: true, ..worker };
        if after.messages() <= MESSAGES {
            each(Event::Stops(worker.next), after);
        }
    }
}

/// Time passes for who is stopped, idle or waiting for the provider.
fn may_pass(state: &State, config: &Config) -> bool {
    let waits = |worker: &Worker| match worker.next {
        Next::Nothing => true,
        Next::Answer { until, .. } => until > state.now,
        _ => worker.stopped,
    };
    // Before there is a row, time counts for the deadline, and for a worker that stands still.
    let counts = match state.row {
        Some(_) => state.now < config.end(),
        None => state.now <= MARGIN.max(config.deadline.unwrap_or(0)),
    };
    counts && state.workers.iter().all(waits) && state.orphan.is_none_or(|until| until > state.now)
}
