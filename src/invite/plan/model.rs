//! Every interleaving of what can happen to one invite, within small bounds: a breadth-first search of a model's states.
//!
//! What decides is the code itself: [`next_step`](super::next_step), [`after_try`](super::after_try) with both ends of its
//! jitter, [`sessions::ledger_entry`](crate::sessions::ledger_entry), [`SessionRow::outcome`](crate::sessions::SessionRow::outcome) and what
//! `SessionRow` says of itself are called with values built from the model's state. Mirrored by hand, and so to be kept like
//! what they mirror: the statements (`sql.rs`), and the order of effects of `process.rs` and `pursue.rs` (`worker.rs`).
//!
//! A hand-written search, and not `stateright`: it is a page of code, needs no dependency, and tells which states can
//! still come to a good end without any fault, which is not among the properties that `stateright` checks soundly.
//!
//! What is left out, and why that is fair:
//!
//! - *Time* goes in steps of a second, and the spans are small: a margin and a time-out of one step each. A worker that is
//!   in order takes no time between two effects; all its slowness is in being *stopped*, anywhere between two effects, for
//!   any time, with its message given to another. One that is merely slow does nothing that a stopped one does not. The
//!   tolerances of a quarter of a second (`AS_GOOD_AS_DUE`, and the 0.3 s of `claim`) are nothing on this grid.
//! - *Retry queues* keep a copy for no time at all: it may be taken at once, and may lie there for any time. That is more
//!   than they do. The row decides what is due.
//! - *A worker that polls* for another's outcome, or whose look failed, publishes a copy instead.
//! - *The provider* takes a request at any time from its write to the time-out, if at all. Its list may show a text at
//!   once, and may show and not show it in turn, until it surely does.
//! - *Between its last check and the write* a worker does not stop: that is the contract's exception.
//! - *A worker that notices* that its message was taken back gives up, which is as if it had died there.
//! - *A claim's own time* counts from its statement; in the code, from before it, which is less.
//! - *The sweep* moves only a row in `sending`: what it does later changes no outcome. It may be late, and never early.
//! - *The operator* switches the group off once, at any time, and not on again: an invite that ends by it is answered, and
//!   one that does not is one whose group was never off. Opt-outs are left out: they end an invite in the same place.
//! - *Without a message id* a row stands for nothing that the next insert could meet, and `recall` may miss it: of this, the
//!   model has only that such an insert succeeds ([`Broken::NoMessageId`]).
//!
//! A [`Broken`] guard shows that the search would notice if the code had it not.

mod check;
mod clock;
mod row;
mod sql;
mod worker;
mod world;

use crate::config::WhenUnsure;
use check::{Found, explore};
use row::{Told, Why};
use world::{Broken, Config};

const USUAL: Config = Config {
    when_unsure: WhenUnsure::Look,
    settle: 2,
    lag: 2,
    ttl: 9,
    deadline: None,
    crashes: 2,
    stops: 1,
    switches_off: false,
    broken: &[],
};

#[track_caller]
fn holds(what: &str, config: &Config, replies: &[Told]) {
    let found = run(what, config);
    assert!(found.violation.is_none());
    // It is no promise that holds because nothing happens.
    assert_eq!(found.told.into_iter().collect::<Vec<_>>(), replies);
    assert_eq!(found.most_posts, world::MAX_ATTEMPTS);
}

#[track_caller]
fn breaks(broken: &str, config: &Config, promise: &str) {
    let found = run(broken, config);
    assert_eq!(found.violation.map(|(what, _)| what), Some(promise));
}

fn run(what: &str, config: &Config) -> Found {
    let begun = std::time::Instant::now();
    let found = explore(config);
    let (states, transitions, took) = (found.states, found.transitions, begun.elapsed());
    println!("{what}: {states} states, {transitions} transitions in {took:.1?}");
    if let Some((promise, way)) = &found.violation {
        println!("{promise}:\n{way}");
    }
    found
}

const SENT: Told = Told::Sent;
const REJECTED: Told = Told::Refused(Why::Rejected);
const UNAVAILABLE: Told = Told::Refused(Why::Unavailable);
const EXPIRED: Told = Told::Refused(Why::Expired);
const SWITCHED_OFF: Told = Told::Refused(Why::SwitchedOff);
const UNKNOWN: Told = Told::Refused(Why::Unknown);

#[test]
fn whatever_happens_there_is_one_outcome_and_at_most_one_text() {
    holds("look", &USUAL, &[SENT, REJECTED, UNAVAILABLE, EXPIRED, UNKNOWN]);
}

#[test]
fn nor_is_there_another_when_the_invite_grows_too_old() {
    let config = Config { deadline: Some(3), crashes: 1, ..USUAL };
    holds("look, with a deadline", &config, &[SENT, REJECTED, UNAVAILABLE, EXPIRED, UNKNOWN]);
}

#[test]
fn nor_when_the_list_needs_more_than_two_looks() {
    let config = Config { settle: 7, lag: 7, crashes: 1, ..USUAL };
    holds("look, in a slow list", &config, &[SENT, REJECTED, UNAVAILABLE, EXPIRED, UNKNOWN]);
}

#[test]
fn who_never_sends_again_or_never_looks_has_one_outcome_too() {
    let fail = Config { when_unsure: WhenUnsure::Fail, ..USUAL };
    holds("fail", &fail, &[SENT, REJECTED, UNAVAILABLE, EXPIRED, UNKNOWN]);
    let resend = Config { when_unsure: WhenUnsure::Resend, ..USUAL };
    holds("resend", &resend, &[SENT, REJECTED, UNAVAILABLE, EXPIRED, UNKNOWN]);
}

#[test]
fn a_group_that_is_switched_off_at_any_time_begins_no_further_try() {
    let replies = [SENT, REJECTED, UNAVAILABLE, EXPIRED, SWITCHED_OFF, UNKNOWN];
    let off = Config { switches_off: true, crashes: 0, ..USUAL };
    holds("look, switched off", &off, &replies);
    holds("look, switched off, with a death", &Config { crashes: 1, stops: 0, ..off }, &replies);
    holds("resend, switched off", &Config { when_unsure: WhenUnsure::Resend, ..off }, &replies);
}

#[test]
fn a_guard_that_is_taken_away_is_missed() {
    let few = Config { crashes: 1, ..USUAL };
    let without = |broken| Config { broken, ..few };
    breaks("a list that lags longer", &Config { lag: 3, ..few }, check::TWO_TEXTS);
    breaks("no check before the write", &without(&[Broken::NoCheckBeforeTheWrite]), check::TWO_TEXTS);
    breaks("no fence on record", &without(&[Broken::RecordIgnoresTheFence]), check::ROW_DENIES);
    breaks("no fence on claim", &without(&[Broken::ClaimIgnoresTheFence]), check::NOT_COUNTED);
    let off = Config { switches_off: true, ..without(&[Broken::ClaimIgnoresTheGroup]) };
    breaks("a claim that ignores its group", &off, check::SENT_WHILE_OFF);
}

/// What the search found in the code when it was first made, and would find again. The last stays: without a message id
/// the worker is kept from it by what it notices, and not by the database (docs/DELIVERY.md).
#[test]
fn what_was_wrong_once_would_be_found_again() {
    let few = Config { crashes: 0, ..USUAL };
    let without = |broken| Config { broken, ..few };
    let late = Config { settle: 7, lag: 7, ..without(&[Broken::LookCountsWhenRecorded]) };
    breaks("a look that counts from when it was recorded", &late, check::TWO_TEXTS);
    let anew = without(&[Broken::TakenBackIsPublishedAnew]);
    breaks("a delivery that was taken back is published anew", &anew, check::DIFFERENT);
    breaks("an invite without a message id", &without(&[Broken::NoMessageId]), check::DIFFERENT);
}
