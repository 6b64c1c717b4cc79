//! A rolling upgrade under load: from the previous release to this one, back, and up again.

use crate::{
    journal::Journal,
    processes::{ProcessSlot, ProcessSlots},
    provider::Provider,
    servers, setup,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use test_support::driver::RunEnvironment;
use tokio::time::{sleep, sleep_until};

/// How long a phase waits, past its end, for its first answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the next step waits for a replaced process. A fault may keep it from being ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    Previous,
    This,
}

/// A part of the run, until this share of its duration.
struct Phase {
    name: &'static str,
    until: f64,
    /// What the processes are replaced by, one after the other.
    replaced_by: Option<Release>,
}

const PHASES: [Phase; 7] = [
    Phase { name: "the previous release alone", until: 0.08, replaced_by: None },
    Phase { name: "both, upgrading", until: 0.32, replaced_by: Some(Release::This) },
    Phase { name: "this release alone", until: 0.40, replaced_by: None },
    Phase { name: "both, going back", until: 0.62, replaced_by: Some(Release::Previous) },
    Phase { name: "the previous release alone, on the newer schema", until: 0.70, replaced_by: None },
    Phase { name: "both, upgrading again", until: 0.92, replaced_by: Some(Release::This) },
    Phase { name: "this release alone, again", until: 1.0, replaced_by: None },
];

/// The environment in which all processes first run the previous release. This release's, if there is no upgrade.
pub(crate) fn first_environment(this: &RunEnvironment, previous: Option<&PathBuf>) -> RunEnvironment {
    let program = previous.unwrap_or(&this.program).clone();
    RunEnvironment { program, ..this.clone() }
}

/// What an upgrade needs of the run.
pub(crate) struct Upgrade<'a> {
    pub slots: &'a ProcessSlots,
    /// With this release's program.
    pub this: &'a RunEnvironment,
    /// The previous release's program. Without one, there is no upgrade.
    pub previous: Option<&'a Path>,
    pub provider: &'a Provider,
    pub settings: &'a [(String, String)],
    pub logs: &'a Path,
    pub journal: &'a Journal,
}

impl Upgrade<'_> {
    /// Goes through all phases within this time. Gives what is wrong.
    pub(crate) async fn run(&self, length: Duration) -> Vec<String> {
        let Some(previous) = self.previous else { return Vec::new() };
        let start = Instant::now();
        let mut problems = Vec::new();
        let (mut begun_at, mut answered_before) = (Duration::ZERO, 0);
        let migrations = self.migrations().await;
        for (number, phase) in PHASES.iter().enumerate() {
            let until = length.mul_f64(phase.until);
            if number == 1 {
                self.add_worker().await;
            }
            let program = match phase.replaced_by {
                Some(Release::Previous) => Some(previous),
                Some(Release::This) => Some(self.this.program.as_path()),
                None => None,
            };
            if let Some(program) = program {
                self.replace_all(program, start, (begun_at, until)).await;
            }
            sleep(until.saturating_sub(start.elapsed())).await;
            // The load ends in the last phase.
            let is_last = number + 1 == PHASES.len();
            let answered =
                if is_last { self.answered() } else { self.wait_for_answer(answered_before).await };
            println!(
                "{:>4} s: {}: {} answered",
                start.elapsed().as_secs(),
                phase.name,
                answered - answered_before
            );
            if answered == answered_before && !is_last {
                problems.push(format!("{}: no invite was answered", phase.name));
            }
            (begun_at, answered_before) = (until, answered);
        }
        println!("        the schema had {migrations} migrations, and has {}", self.migrations().await);
        problems
    }

    fn answered(&self) -> usize {
        self.journal.progress().1
    }

    /// Waits until more invites are answered. Gives their number, also if it is still the same.
    async fn wait_for_answer(&self, before: usize) -> usize {
        let start = Instant::now();
        while self.answered() == before && start.elapsed() < ANSWER_TIMEOUT {
            sleep(Duration::from_millis(50)).await;
        }
        self.answered()
    }

    /// One worker of this release beside all of the previous one: it migrates the schema while they work.
    async fn add_worker(&self) {
        let index = self.slots.of("worker").len();
        let settings = self.settings.to_vec();
        setup::start(self.slots, (index, "worker"), self.this, self.provider, settings, self.logs).await;
        if let Some(added) = self.slots.of("worker").last() {
            wait_until_ready(added).await;
        }
    }

    /// Replaces each process at its time, workers and gateways in turn.
    async fn replace_all(&self, program: &Path, start: Instant, (from, until): (Duration, Duration)) {
        let (workers, gateways) = (self.slots.of("worker"), self.slots.of("gateway"));
        let longest = workers.len().max(gateways.len());
        let in_turn: Vec<Arc<ProcessSlot>> = (0..longest)
            .flat_map(|index| [workers.get(index), gateways.get(index)])
            .flatten()
            .cloned()
            .collect();
        let pause = until.saturating_sub(from) / u32::try_from(in_turn.len().max(1)).unwrap_or(u32::MAX);
        let mut at = from;
        for slot in in_turn {
            sleep_until((start + at).into()).await;
            slot.replace(program.to_owned()).await;
            wait_until_ready(&slot).await;
            at += pause;
        }
    }

    async fn migrations(&self) -> i64 {
        // A fault may have ended the database or its connections.
        for _ in 0..20 {
            if let Ok(count) = servers::migrations(&self.this.database_url).await {
                return count;
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("the database does not give the count of its migrations");
    }
}

async fn wait_until_ready(slot: &ProcessSlot) {
    let start = Instant::now();
    while start.elapsed() < READY_TIMEOUT && !slot.is_ready().await {
        sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_follow_each_other_and_fill_the_duration() {
        assert!(PHASES.is_sorted_by(|one, next| one.until < next.until));
        assert!((PHASES[PHASES.len() - 1].until - 1.0).abs() < f64::EPSILON);
    }
}
