//! Readiness for the database: what a process does can be done, or why not. It is looked at every two seconds by a
//! connection outside the pool, so that `/readyz` is answered from memory.
//!
//! The last real statement of a kind counts first. Where there was none for 5 s, or it failed, what stands in its way is
//! looked for: see [`probe`].

use super::{
    error::{Passing, Unusable},
    kinds::{Failed, Kind, LOOK},
    leave,
    probe::{self, Locks, Obstacle},
    reach::{self, Reach, Reached},
};
use crate::supervise::Pulse;
use sqlx::PgPool;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(2);
/// The least time from one look to the next, however many statements fail.
const AT_LEAST: Duration = Duration::from_millis(200);
/// How long a look may take.
const LOOKS_FOR: Duration = Duration::from_secs(3);
/// What was seen longer ago than this says nothing.
const SEEN_FOR: Duration = Duration::from_secs(7);

/// What a process needs of the database, and whether it can have it.
#[derive(Clone)]
pub struct Watch {
    kinds: &'static [&'static Kind],
    seen: Arc<Mutex<Seen>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("problems", &self.problems()).finish_non_exhaustive()
    }
}

/// What the last look has shown.
#[derive(Debug)]
struct Seen {
    /// Why the database cannot be reached or used at all.
    away: Option<String>,
    obstacles: Vec<Obstacle>,
    /// Who holds up a statement that waits for a lock.
    holders: Vec<String>,
    at: Option<Instant>,
    /// When the last look began, by the process's clock: what fails later is looked at first.
    looked: u64,
    told: Vec<String>,
}

impl Watch {
    pub fn new(kinds: &'static [&'static Kind]) -> Self {
        let away = Some("the database was not reached yet".to_owned());
        let seen =
            Seen { away, obstacles: Vec::new(), holders: Vec::new(), at: None, looked: 0, told: Vec::new() };
        Self { kinds, seen: Arc::new(Mutex::new(seen)) }
    }

    /// What stands in the way, each with what to do; empty when all can be done.
    pub fn problems(&self) -> Vec<String> {
        self.of(&self.seen())
    }

    fn of(&self, seen: &Seen) -> Vec<String> {
        if let Some(away) = &seen.away {
            return vec![away.clone()];
        }
        if seen.at.is_none_or(|at| at.elapsed() > SEEN_FOR) {
            return vec!["the database does not answer: see pg_stat_activity and its log".to_owned()];
        }
        let mut problems = Vec::new();
        for kind in self.kinds {
            let obstacles: Vec<_> = seen
                .obstacles
                .iter()
                .filter(|obstacle| obstacle.concerns(kind))
                .map(|o| o.message.clone())
                .collect();
            let failed = kind.trouble().filter(|failed| failed.at <= seen.looked);
            if failed.is_none() && kind.is_proven() {
                continue;
            }
            match failed {
                Some(failed) if obstacles.is_empty() => problems.push(words(kind, &failed, &seen.holders)),
                _ => problems.extend(obstacles),
            }
        }
        let mut unique = Vec::new();
        problems.retain(|problem| {
            let is_new = !unique.contains(problem);
            unique.extend(is_new.then(|| problem.clone()));
            is_new
        });
        problems
    }

    /// The database cannot be used: that is all there is to say for now.
    pub fn is_away(&self, why: &str) {
        let mut seen = self.seen();
        seen.away = Some(why.to_owned());
        seen.at = Some(Instant::now());
    }

    /// Looks until `stop`.
    pub(super) async fn run(self, reach: Reach, pool: PgPool, stop: CancellationToken, pulse: Pulse) {
        let node = reach::name(&pool.connect_options());
        let mut looking = Looking {
            watch: self,
            reach,
            own: None,
            node,
            pool,
            locks: Locks::default(),
            blind_at: 0,
            leaving: leave::leaving(),
        };
        loop {
            pulse.step("looking at the database");
            if stop.run_until_cancelled(Box::pin(looking.look())).await.is_none() {
                return;
            }
            pulse.idle();
            let woken = async {
                tokio::time::sleep(AT_LEAST).await;
                let _ = timeout(EVERY, LOOK.notified()).await;
            };
            if stop.run_until_cancelled(woken).await.is_none() {
                return;
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what was seen, and says in the log what is new.
    fn saw(&self, looked: u64, away: Option<String>, obstacles: Vec<Obstacle>, holders: Vec<String>) {
        let mut seen = self.seen();
        (seen.away, seen.obstacles, seen.at, seen.looked) = (away, obstacles, Some(Instant::now()), looked);
        if !holders.is_empty() || !self.kinds.iter().any(|kind| waits_for_a_lock(kind)) {
            seen.holders = holders;
        }
        let problems = self.of(&seen);
        for problem in problems.iter().filter(|problem| !seen.told.contains(problem)) {
            tracing::warn!(problem, "not ready: the database");
        }
        if problems.is_empty() && !seen.told.is_empty() {
            tracing::info!("the database can do all that is needed again");
        }
        seen.told = problems;
    }
}

fn waits_for_a_lock(kind: &Kind) -> bool {
    kind.trouble().is_some_and(|failed| failed.code.as_deref() == Some("55P03"))
}

/// What a statement's own error says.
fn words(kind: &Kind, failed: &Failed, holders: &[String]) -> String {
    let Failed { cause, code, .. } = failed;
    let mend = match code.as_deref() {
        Some("55P03") if !holders.is_empty() => {
            return format!("{:?} fails: {cause}; {}", kind.name, holders.join("; "));
        }
        Some("55P03") => ": see pg_locks for who holds it",
        Some("53100") => ": make room on the database's disk",
        Some("0A000") => "; it is tried again by another connection",
        _ => "",
    };
    format!("{:?} fails: {cause}{mend}", kind.name)
}

/// Whether a statement that had no connection at `failed` had begun to wait for one when the database was away. Nothing
/// is wrong with the pool then.
fn waited_while_blind(failed: u64, blind_at: u64) -> bool {
    let waited = reach::ACQUIRED_WITHIN + Duration::from_secs(1);
    failed.saturating_sub(blind_at) < u64::try_from(waited.as_micros()).unwrap_or(u64::MAX)
}

/// The task's own.
struct Looking {
    watch: Watch,
    reach: Reach,
    own: Option<Reached>,
    /// Where the pool connects to.
    node: String,
    pool: PgPool,
    locks: Locks,
    /// When it was last seen that the database, or a connection to it, was of no use; by the process's clock.
    blind_at: u64,
    leaving: tokio::sync::watch::Receiver<()>,
}

/// Why a look has shown nothing.
enum Blind {
    Failed(String),
    Silent,
}

impl Looking {
    async fn look(&mut self) {
        let (is_fresh, looked) = (self.own.is_none(), leave::now());
        let mut found = self.try_to_look().await;
        let was_blind = is_fresh || found.is_err();
        if let (Err(blind), false) = (&found, is_fresh) {
            // The connection may be at fault, and no more: a fresh one says.
            let silent = matches!(blind, Blind::Silent);
            self.own = None;
            found = self.try_to_look().await;
            match (&found, silent) {
                (Ok(_), true) => leave::give_up_silent_connections(),
                (Ok(_), false) => leave::leave_connections(),
                (Err(_), _) => {}
            }
        }
        if was_blind {
            self.blind_at = leave::now();
        }
        let (away, obstacles, holders) = match found {
            Ok((obstacles, holders)) => (self.why_none().await, obstacles, holders),
            Err(blind) => {
                self.own = None;
                let why = match blind {
                    Blind::Failed(why) => why,
                    Blind::Silent => {
                        format!(
                            "the database is away ({}: no answer within {} s)",
                            self.node,
                            LOOKS_FOR.as_secs()
                        )
                    }
                };
                (Some(why), Vec::new(), Vec::new())
            }
        };
        if obstacles.iter().any(Obstacle::is_of_everything) {
            // What takes no writes is not used again, and another node may take them by now.
            self.own = None;
            leave::leave_connections();
        }
        self.watch.saw(looked, away, obstacles, holders);
        self.close_left();
    }

    async fn try_to_look(&mut self) -> Result<(Vec<Obstacle>, Vec<String>), Blind> {
        if self.own.is_none() {
            let reached =
                Box::pin(self.reach.connect()).await.map_err(|error| Blind::Failed(error.to_string()))?;
            self.is_at(&reached);
            self.own = Some(reached);
        }
        let Some(own) = &mut self.own else { return Err(Blind::Silent) };
        let (kinds, locks) = (self.watch.kinds, &mut self.locks);
        // Once a statement has waited for a lock in vain, every holder of a lock is named.
        let held_for =
            if kinds.iter().any(|kind| waits_for_a_lock(kind)) { Duration::ZERO } else { probe::HELD_FOR };
        let looking = async {
            let obstacles = probe::obstacles(&mut own.connection, kinds, locks, held_for).await?;
            let holders =
                if held_for.is_zero() { probe::holders(&mut own.connection).await? } else { Vec::new() };
            Ok((obstacles, holders))
        };
        match timeout(LOOKS_FOR, Box::pin(looking)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err::<_, sqlx::Error>(error)) => {
                Err(Blind::Failed(Unusable::Away(error.summary()).to_string()))
            }
            Err(_) => Err(Blind::Silent),
        }
    }

    /// The pool's next connections go where this one went.
    fn is_at(&mut self, reached: &Reached) {
        let node = reach::name(&reached.node);
        self.pool.set_connect_options(reached.node.clone());
        if node != self.node {
            tracing::warn!(from = self.node, to = node, "another node of the database is used from now on");
            self.node = node;
            leave::leave_connections();
        }
    }

    /// Why the pool has no connection to give, if that is what statements fail by.
    async fn why_none(&self) -> Option<String> {
        let starved = self.watch.kinds.iter().filter_map(|kind| kind.trouble());
        let last = starved.filter(|failed| failed.without_connection).map(|failed| failed.at).max()?;
        let why = if waited_while_blind(last, self.blind_at) {
            "it answers again, and connections are being opened again".to_owned()
        } else {
            reach::why_no_connection().await
        };
        Some(format!("no connection to the database is to be had: {why}"))
    }

    /// Idle connections that were left are closed now, and not when somebody needs one.
    fn close_left(&mut self) {
        if !self.leaving.has_changed().unwrap_or_default() {
            return;
        }
        self.leaving.mark_unchanged();
        // On its way back to the pool each is looked at.
        let idle: Vec<_> = (0..self.pool.num_idle()).map_while(|_| self.pool.try_acquire()).collect();
        drop(idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_began_while_the_database_was_away_says_nothing_of_the_pool() {
        const SECOND: u64 = 1_000_000;
        let blind_at = 3_600 * SECOND;
        assert!(waited_while_blind(blind_at - SECOND, blind_at));
        assert!(waited_while_blind(blind_at + 5 * SECOND, blind_at));
        assert!(!waited_while_blind(blind_at + 7 * SECOND, blind_at));
        assert!(!waited_while_blind(blind_at, 0));
    }
}
