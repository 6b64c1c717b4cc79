//! The search, and what has to hold in each state that it finds.

use super::{
    row::Told,
    worker::{Event, follow},
    world::{Config, MAX_ATTEMPTS, Next, State, Wrong},
};
use crate::{config::WhenUnsure, sessions::Status};
use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write,
    hash::{BuildHasherDefault, Hasher},
};

pub const TWO_TEXTS: &str = "two texts";
pub const DIFFERENT: &str = "two replies differ, or one publish has two rows";
pub const NOT_COUNTED: &str = "a try was made before it was counted";
pub const SENT_WHILE_OFF: &str = "a try was begun after its group was switched off";
pub const ROW_DENIES: &str = "a row denies a text that there is";

/// What a search found.
#[derive(Debug)]
pub struct Found {
    pub states: usize,
    pub transitions: usize,
    /// What was replied, in one way or another.
    pub told: BTreeSet<Told>,
    pub most_posts: u8,
    /// What is wrong, and the shortest way to it.
    pub violation: Option<(&'static str, String)>,
}

struct Node {
    state: State,
    before: u32,
    event: Event,
}

/// Every state within the configuration's bounds, up to the first in which something is wrong.
pub fn explore(config: &Config) -> Found {
    let start = State::start(config);
    let mut nodes = vec![Node { state: start, before: 0, event: Event::Start }];
    let mut seen: HashMap<State, u32, BuildHasherDefault<Quick>> = HashMap::default();
    seen.insert(start, 0);
    // Which states follow which, by anything that is no fault.
    let mut ways: Vec<(u32, u32)> = Vec::new();
    let (mut next, mut transitions) = (0, 0);
    while let Some(node) = nodes.get(next) {
        let (state, from) = (node.state, index(next));
        if let Some(what) = violation(&state, config) {
            return found(&nodes, transitions, Some((what, tell(&nodes, next))));
        }
        follow(&state, config, &mut |event, state| {
            transitions += 1;
            let state = state.canonical(config);
            let to = *seen.entry(state).or_insert_with(|| {
                nodes.push(Node { state, before: from, event });
                index(nodes.len() - 1)
            });
            if !event.is_fault() {
                ways.push((to, from));
            }
        });
        next += 1;
    }
    let stuck = dead_end(&nodes, ways);
    let violation = stuck.map(|stuck| ("no way leads on to an outcome", tell(&nodes, stuck)));
    found(&nodes, transitions, violation)
}

fn found(nodes: &[Node], transitions: usize, violation: Option<(&'static str, String)>) -> Found {
    let told = nodes.iter().filter_map(|node| node.state.told).collect();
    let most_posts = nodes.iter().map(|node| node.state.posts).max().unwrap_or_default();
    Found { states: nodes.len(), transitions, told, most_posts, violation }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("fewer states")
}

/// What is wrong with a state.
fn violation(state: &State, config: &Config) -> Option<&'static str> {
    let row = state.row;
    let is = |status: Status| row.is_some_and(|row| row.status == status);
    let denied = is(Status::Rejected) || is(Status::Failed);
    let faults = [
        (state.wrong == Some(Wrong::ClaimedWhileSwitchedOff), SENT_WHILE_OFF),
        (state.wrong.is_some(), DIFFERENT),
        (state.texts > 1 && config.when_unsure != WhenUnsure::Resend, TWO_TEXTS),
        (state.posts > row.map_or(0, |row| row.attempts), NOT_COUNTED),
        (state.posts > MAX_ATTEMPTS, "more tries than are allowed"),
        (state.told == Some(Told::Sent) && state.texts == 0, "a reply says sent, and there is no text"),
        (is(Status::Sent) && state.texts == 0, "a row says sent, and there is no text"),
        (
            state.told.is_some_and(Told::denies_a_text) && state.texts > 0,
            "a reply denies a text that there is",
        ),
        (denied && state.texts > 0, ROW_DENIES),
        (state.told.is_some() && state.told != state.outcome(), "the outcome changed after it was told"),
        (
            state.messages() == 0 && (row.is_none() || is(Status::Sending)),
            "no message is left, and there is no outcome",
        ),
    ];
    faults.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
}

/// The invite has its outcome, it was told, and nothing is under way any more.
fn is_settled(state: &State) -> bool {
    let idle = state.workers.iter().all(|worker| worker.next == Next::Nothing);
    idle && state.messages() == 0 && state.told.is_some() && state.told == state.outcome()
}

/// A state from which, without any further fault, no way leads to a settled one.
fn dead_end(nodes: &[Node], mut ways: Vec<(u32, u32)>) -> Option<usize> {
    ways.sort_unstable();
    let mut good: Vec<bool> = nodes.iter().map(|node| is_settled(&node.state)).collect();
    let mut reached: Vec<usize> = (0..nodes.len()).filter(|&at| good[at]).collect();
    while let Some(at) = reached.pop() {
        let from = ways.partition_point(|&(to, _)| to < index(at));
        for &(_, before) in ways[from..].iter().take_while(|(to, _)| *to == index(at)) {
            let before = before as usize;
            if !good[before] {
                good[before] = true;
                reached.push(before);
            }
        }
    }
    good.iter().position(|good| !good)
}

/// The way to a state, a line for each event.
fn tell(nodes: &[Node], to: usize) -> String {
    let mut way = vec![to];
    while way[way.len() - 1] != 0 {
        way.push(nodes[way[way.len() - 1]].before as usize);
    }
    let mut story = String::new();
    for at in way.into_iter().rev() {
        let Node { state, event, .. } = &nodes[at];
        let _ = writeln!(story, "{:>3}  {event:?}", state.now);
        if let Some(row) = state.row.filter(|_| !matches!(event, Event::Tick | Event::GoesOn(_))) {
            let _ = writeln!(
                story,
                "       row: {:?} {:?} fence {} attempts {} looks {} looked_at {:?} unsure_from {} lease_until {:?} {:?}; posts {} texts {} told {:?}",
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
                state.told
            );
        }
    }
    story
}

/// Of small fields, in a build that is not optimized: half of the time would go into the usual hasher.
#[derive(Default)]
struct Quick(u64);

impl Quick {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Quick {
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
        // The table takes its place from the lowest bits.
        self.0.rotate_left(26)
    }
}
