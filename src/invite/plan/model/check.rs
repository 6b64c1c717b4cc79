//! The search, and the promises that must hold in every state.

use super::{
    row::ModelReply,
    worker::{Transition, follow},
    world::{BrokenPromise, Effect, MAX_ATTEMPTS, ModelConfig, ModelState},
};
use crate::{config::WhenUnsure, sessions::Status};
use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write,
    hash::{BuildHasherDefault, Hasher},
};

pub(super) const TWO_TEXTS: &str = "two texts";
pub(super) const DIFFERENT: &str = "two replies differ, or one publish has two rows";
pub(super) const NOT_COUNTED: &str = "a try was made before it was counted";
pub(super) const SENT_WHILE_OFF: &str = "a try was begun after its group was switched off";
pub(super) const ROW_DENIES: &str = "a row denies a text that there is";

/// What a search found.
#[derive(Debug)]
pub(super) struct SearchResult {
    pub states: usize,
    pub transitions: usize,
    /// Every reply that was given in some state.
    pub replies: BTreeSet<ModelReply>,
    pub most_posts: u8,
    pub violation: Option<Violation>,
}

/// A promise that does not hold.
#[derive(Debug)]
pub(super) struct Violation {
    pub promise: &'static str,
    /// The shortest path to a state that breaks it, a line for each transition.
    pub path: String,
}

struct Node {
    state: ModelState,
    before: u32,
    transition: Transition,
}

/// Visits every state within the bounds, up to the first that breaks a promise.
pub(super) fn explore(config: &ModelConfig) -> SearchResult {
    let start = ModelState::start(config);
    let mut nodes = vec![Node { state: start, before: 0, transition: Transition::Start }];
    let mut seen: HashMap<ModelState, u32, BuildHasherDefault<FastHasher>> = HashMap::default();
    seen.insert(start, 0);
    // Pairs (state, state before), for every transition that is not a fault.
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let (mut next, mut transitions) = (0, 0);
    while let Some(node) = nodes.get(next) {
        let (state, from) = (node.state, index(next));
        if let Some(promise) = broken_promise(&state, config) {
            return result(&nodes, transitions, Some(Violation { promise, path: path(&nodes, next) }));
        }
        follow(&state, config, &mut |transition, state| {
            transitions += 1;
            let state = state.canonical(config);
            let to = *seen.entry(state).or_insert_with(|| {
                nodes.push(Node { state, before: from, transition });
                index(nodes.len() - 1)
            });
            if !transition.is_fault() {
                edges.push((to, from));
            }
        });
        next += 1;
    }
    let violation = dead_end(&nodes, edges)
        .map(|stuck| Violation { promise: "no way leads to an outcome", path: path(&nodes, stuck) });
    result(&nodes, transitions, violation)
}

fn result(nodes: &[Node], transitions: usize, violation: Option<Violation>) -> SearchResult {
    let replies = nodes.iter().filter_map(|node| node.state.reply).collect();
    let most_posts = nodes.iter().map(|node| node.state.posts).max().unwrap_or_default();
    SearchResult { states: nodes.len(), transitions, replies, most_posts, violation }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("fewer states")
}

/// The promise that a state breaks.
fn broken_promise(state: &ModelState, config: &ModelConfig) -> Option<&'static str> {
    let row = state.row;
    let is = |status: Status| row.is_some_and(|row| row.status == status);
    let denied = is(Status::Rejected) || is(Status::Failed);
    let faults = [
        (state.broken_promise == Some(BrokenPromise::ClaimedWhileSwitchedOff), SENT_WHILE_OFF),
        (state.broken_promise.is_some(), DIFFERENT),
        (state.texts > 1 && config.when_unsure != WhenUnsure::Resend, TWO_TEXTS),
        (state.posts > row.map_or(0, |row| row.attempts), NOT_COUNTED),
        (state.posts > MAX_ATTEMPTS, "more tries than are allowed"),
        (
            state.reply == Some(ModelReply::Sent) && state.texts == 0,
            "a reply reports a sent text, and there is none",
        ),
        (is(Status::Sent) && state.texts == 0, "a row reports a sent text, and there is none"),
        (
            state.reply.is_some_and(ModelReply::denies_text) && state.texts > 0,
            "a reply denies a text that there is",
        ),
        (denied && state.texts > 0, ROW_DENIES),
        (state.reply.is_some() && state.reply != state.outcome(), "the outcome changed after the reply"),
        (
            state.messages() == 0 && (row.is_none() || is(Status::Sending)),
            "no message is left, and there is no outcome",
        ),
    ];
    faults.into_iter().find_map(|(is_broken, promise)| is_broken.then_some(promise))
}

/// Whether the invite has its outcome and its reply, and nothing is under way any more.
fn is_settled(state: &ModelState) -> bool {
    let idle = state.workers.iter().all(|worker| worker.next == Effect::Nothing);
    idle && state.messages() == 0 && state.reply.is_some() && state.reply == state.outcome()
}

/// A state from which no way without a further fault leads to a settled state.
fn dead_end(nodes: &[Node], mut edges: Vec<(u32, u32)>) -> Option<usize> {
    edges.sort_unstable();
    let mut good: Vec<bool> = nodes.iter().map(|node| is_settled(&node.state)).collect();
    let mut reached: Vec<usize> = (0..nodes.len()).filter(|&at| good[at]).collect();
    while let Some(at) = reached.pop() {
        let from = edges.partition_point(|&(to, _)| to < index(at));
        for &(_, before) in edges[from..].iter().take_while(|(to, _)| *to == index(at)) {
            let before = before as usize;
            if !good[before] {
                good[before] = true;
                reached.push(before);
            }
        }
    }
    good.iter().position(|good| !good)
}

/// The path to a state, a line for each transition.
fn path(nodes: &[Node], to: usize) -> String {
    let mut path = vec![to];
    while path[path.len() - 1] != 0 {
        path.push(nodes[path[path.len() - 1]].before as usize);
    }
    let mut lines = String::new();
    for at in path.into_iter().rev() {
        let Node { state, transition, .. } = &nodes[at];
        let _ = writeln!(lines, "{:>3}  {transition:?}", state.now);
        if let Some(row) =
            state.row.filter(|_| !matches!(transition, Transition::Tick | Transition::Resume(_)))
        {
            let _ = writeln!(
                lines,
                "       row: {:?} {:?} fence {} attempts {} looks {} looked_at {:?} unsure_from {} lease_until {:?} {:?}; posts {} texts {} reply {:?}",
                row.status,
                row.text_state,
                row.fence,
                row.attempts,
                row.looks,
                row.looked_at,
                row.unsure_from,
                row.lease_until,
                row.error,
                state.posts,
                state.texts,
                state.reply
            );
        }
    }
    lines
}

/// A hasher for small fields. In a build without optimization the standard hasher would take half of the time.
#[derive(Default)]
struct FastHasher(u64);

impl FastHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.mix((*byte).into());
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.mix(n.into());
    }

    fn write_i8(&mut self, n: i8) {
        self.mix(n.unsigned_abs().into());
        self.mix(u64::from(n < 0));
    }

    fn write_isize(&mut self, n: isize) {
        self.mix(n.unsigned_abs() as u64);
    }

    fn finish(&self) -> u64 {
        // The table's index comes from the lowest bits.
        self.0.rotate_left(26)
    }
}
