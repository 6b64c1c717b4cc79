//! Every interleaving of what can happen to one invite, within small bounds: a breadth-first search of a model's states.
//!
//! The code itself decides. [`next_step`](super::next_step), [`after_try`](super::after_try) with both ends of its jitter,
//! [`sessions::ledger_entry`](crate::sessions::ledger_entry), [`SessionRow::outcome`](crate::sessions::SessionRow::outcome) and the
//! other methods of `SessionRow` are called with values built from the model's state. Two parts are copied by hand, and have
//! to follow the code: the statements (`sql.rs`), which `against_postgres.rs` compares with the real ones, and the order of
//! effects of `process.rs` and `pursue.rs` (`worker.rs`).
//!
//! The search is written by hand, and does not use `stateright`. It is a page of code and needs no dependency. It also finds
//! the states from which no way without a fault leads to a good end; `stateright` does not check that soundly.
//!
//! What the model leaves out, and why that is fair:
//!
//! - *Time* moves in steps of a second, and the spans are small: one step for the margin, one for the time-out. A worker
//!   takes no time between two effects, unless it is *stopped*. A stop may come between any two effects and last for any
//!   time, and another worker gets the message. A slow worker does nothing that a stopped one does not. The tolerances of a
//!   quarter of a second (`TOLERANCE`, and the 0.3 s of `claim`) are too small to count.
//! - *Retry queues* have no delay: a copy may be taken at once, and may stay for any time. The real queues allow less. The
//!   row decides what is due.
//! - *A worker that polls* for another worker's outcome publishes a copy instead. So does one whose look failed.
//! - *The provider* takes a request at any time from its write to the time-out, if at all. Its list may show a text at once,
//!   and may show it and hide it in turn, until it surely shows it.
//! - *Between its last check and the write* a worker does not stop: that is the contract's exception.
//! - *A worker that notices* that its message was withdrawn gives up, which is the same as a crash there.
//! - *A claim's time to write* counts from its statement. In the code it counts from before the statement, which is less.
//! - *The sweep* moves only a row in `sending`: what it does later changes no outcome. It may be late, and is never early.
//! - *The operator* switches the group off once, at any time, and not on again. If that ends the invite, it is answered. If it
//!   does not, the run equals one without it. Opt-outs are left out: they end an invite at the same point.
//! - *Without a message id* the next insert finds no conflict, and `recall` may miss the row. The model has only the first:
//!   such an insert succeeds ([`RemovedGuard::NoMessageId`]).
//!
//! A run with a [`RemovedGuard`] shows that the search would notice if the code lacked that guard.

mod against_postgres;
mod check;
mod clock;
mod row;
mod sql;
mod worker;
mod world;

use crate::config::WhenUnsure;
use check::{SearchResult, Violation, explore};
use row::{ModelCode, ModelReply};
use world::{ModelConfig, RemovedGuard};

const DEFAULT_BOUNDS: ModelConfig = ModelConfig {
    when_unsure: WhenUnsure::Look,
    settle: 2,
    lag: 2,
    ttl: 9,
    deadline: None,
    crashes: 2,
    stops: 1,
    switches_off: false,
    removed: &[],
};

#[track_caller]
fn assert_holds(name: &str, config: &ModelConfig, replies: &[ModelReply]) {
    let found = run(name, config);
    assert!(found.violation.is_none());
    // The promise holds, and not only because nothing happens.
    assert_eq!(found.replies.into_iter().collect::<Vec<_>>(), replies);
    assert_eq!(found.most_posts, world::MAX_ATTEMPTS);
}

#[track_caller]
fn assert_breaks(name: &str, config: &ModelConfig, promise: &str) {
    let found = run(name, config);
    assert_eq!(found.violation.map(|violation| violation.promise), Some(promise));
}

fn run(name: &str, config: &ModelConfig) -> SearchResult {
    let begun = std::time::Instant::now();
    let found = explore(config);
    let (states, transitions, took) = (found.states, found.transitions, begun.elapsed());
    println!("{name}: {states} states, {transitions} transitions in {took:.1?}");
    if let Some(Violation { promise, path }) = &found.violation {
        println!("{promise}:\n{path}");
    }
    found
}

const SENT: ModelReply = ModelReply::Sent;
const REJECTED: ModelReply = ModelReply::Refused(ModelCode::Rejected);
const UNAVAILABLE: ModelReply = ModelReply::Refused(ModelCode::Unavailable);
const EXPIRED: ModelReply = ModelReply::Refused(ModelCode::Expired);
const SWITCHED_OFF: ModelReply = ModelReply::Refused(ModelCode::SwitchedOff);
const UNKNOWN: ModelReply = ModelReply::Refused(ModelCode::Unknown);

#[test]
fn an_invite_has_one_outcome_and_at_most_one_text() {
    assert_holds("look", &DEFAULT_BOUNDS, &[SENT, REJECTED, UNAVAILABLE, EXPIRED, UNKNOWN]);
}

#[test]
fn an_invite_that_grows_too_old_has_one_outcome_and_at_most_one_text() {
    let config = ModelConfig { deadline: Some(3), crashes: 1, ..DEFAULT_BOUNDS };
    assert_holds("look, with a deadline", &config, &[SENT, REJECTED, UNAVAILABLE, EXPIRED, UNKNOWN]);
}

#[test]
fn an_invite_with_a_slow_list_has_one_outcome_and_at_most_one_text() {
    let config = ModelConfig { settle: 7, lag: 7, crashes: 1, ..DEFAULT_BOUNDS };
    assert_holds("look, in a slow list", &config, &[SENT, REJECTED, UNAVAILABLE, EXPIRED, UNKNOWN]);
}

#[test]
fn an_invite_has_one_outcome_with_the_settings_fail_and_resend_too() {
    let fail = ModelConfig { when_unsure: WhenUnsure::Fail, ..DEFAULT_BOUNDS };
    assert_holds("fail", &fail, &[SENT, REJECTED, UNAVAILABLE, EXPIRED, UNKNOWN]);
    let resend = ModelConfig { when_unsure: WhenUnsure::Resend, ..DEFAULT_BOUNDS };
    assert_holds("resend", &resend, &[SENT, REJECTED, UNAVAILABLE, EXPIRED, UNKNOWN]);
}

#[test]
fn a_group_that_is_switched_off_at_any_time_begins_no_further_try() {
    let replies = [SENT, REJECTED, UNAVAILABLE, EXPIRED, SWITCHED_OFF, UNKNOWN];
    let off = ModelConfig { switches_off: true, crashes: 0, ..DEFAULT_BOUNDS };
    assert_holds("look, switched off", &off, &replies);
    assert_holds("look, switched off, with a death", &ModelConfig { crashes: 1, stops: 0, ..off }, &replies);
    assert_holds("resend, switched off", &ModelConfig { when_unsure: WhenUnsure::Resend, ..off }, &replies);
}

#[test]
fn the_search_notices_a_guard_that_is_removed() {
    let few = ModelConfig { crashes: 1, ..DEFAULT_BOUNDS };
    let without = |removed| ModelConfig { removed, ..few };
    assert_breaks("a list that lags longer", &ModelConfig { lag: 3, ..few }, check::TWO_TEXTS);
    assert_breaks(
        "no check before the write",
        &without(&[RemovedGuard::NoCheckBeforeTheWrite]),
        check::TWO_TEXTS,
    );
    assert_breaks("no fence on record", &without(&[RemovedGuard::RecordIgnoresTheFence]), check::ROW_DENIES);
    assert_breaks("no fence on claim", &without(&[RemovedGuard::ClaimIgnoresTheFence]), check::NOT_COUNTED);
    let off = ModelConfig { switches_off: true, ..without(&[RemovedGuard::ClaimIgnoresTheGroup]) };
    assert_breaks("a claim that ignores its group", &off, check::SENT_WHILE_OFF);
}

/// Faults that the search found in the code when it was written. The last one remains: without a message id no constraint of
/// the database prevents it, only what the worker notices (docs/DELIVERY.md).
#[test]
fn the_search_finds_the_faults_of_old_versions_again() {
    let few = ModelConfig { crashes: 0, ..DEFAULT_BOUNDS };
    let without = |removed| ModelConfig { removed, ..few };
    let late = ModelConfig { settle: 7, lag: 7, ..without(&[RemovedGuard::LookCountsWhenRecorded]) };
    assert_breaks("a look that counts from when it was recorded", &late, check::TWO_TEXTS);
    let withdrawn = without(&[RemovedGuard::WithdrawnCountsAsNewPublish]);
    assert_breaks("a withdrawn delivery that counts as a new publish", &withdrawn, check::DIFFERENT);
    assert_breaks("an invite without a message id", &without(&[RemovedGuard::NoMessageId]), check::DIFFERENT);
}
