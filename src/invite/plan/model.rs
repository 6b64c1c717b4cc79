//! Every interleaving of what can happen to one invite, within small bounds: a breadth-first search of a model's states.
//!
//! What decides is the code itself: [`next_step`](super::next_step), [`after_try`](super::after_try) with both ends of its
//! jitter, [`sessions::ended`](crate::sessions::ended), [`Standing::outcome`](crate::sessions::Standing::outcome) and what
//! `Standing` says of itself are called with values built from the model's state. Mirrored by hand, and so to be kept like
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
//! - *Message ids*: the invite has one. Whoever has none is told apart in `recall`, which is not modelled.

mod check;
mod sql;
mod worker;
mod world;

use crate::config::WhenUnsure;
use check::explore;
use world::Config;

/// A run to its end: the policy's promises hold in each state.
const SOUND: Config = Config {
    when_unsure: WhenUnsure::Look,
    settle: 2,
    lag: 2,
    ttl: 9,
    deadline: None,
    crashes: 2,
    stops: 1,
    broken: &[],
};

fn run(name: &str, config: &Config) -> check::Found {
    let begun = std::time::Instant::now();
    let found = explore(config);
    println!(
        "{name}: {} states, {} transitions, {:.1?}: {}",
        found.states,
        found.transitions,
        begun.elapsed(),
        found.violation.as_ref().map_or("nothing is wrong".to_owned(), |(what, way)| format!("{what}\n{way}"))
    );
    found
}

#[test]
fn plan_probe() {
    let small = Config { crashes: 1, stops: 0, ..SOUND };
    run("1 crash", &small);
    run("1 stop", &Config { crashes: 0, stops: 1, ..SOUND });
    run("2 crashes", &Config { crashes: 2, stops: 0, ..SOUND });
    run("1+1", &Config { crashes: 1, stops: 1, ..SOUND });
    run("2+1", &SOUND);
}
