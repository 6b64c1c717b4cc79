//! Readiness of the database: whether the process can do there what it needs, or why not. A connection outside the pool
//! checks every two seconds, so that `/readyz` is answered from memory.
//!
//! The last real statement of a kind counts first. If there was none for 5 s, or it failed, [`probe`] looks for obstacles.

use super::{
    error::{StatementError, UnusableDatabase},
    kinds::{CHECK_NOW, StatementFailure, StatementKind},
    node_states::{self, NodeLook},
    nodes::{self, DatabaseNodes, NodeConnection},
    probe::{self, Locks, Obstacle},
    retire,
};
use crate::{
    nodes::{NodeReport, NodeServer, NodeState},
    supervise::Pulse,
};
use sqlx::PgPool;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The time between two checks.
const EVERY: Duration = Duration::from_secs(2);
/// The least time between two checks, however many statements fail.
const AT_LEAST: Duration = Duration::from_millis(200);
/// The time limit of a check.
const CHECK_WITHIN: Duration = Duration::from_secs(3);
/// The time between two looks at all nodes.
const LOOKS_EVERY: Duration = Duration::from_secs(5);
/// The result of an older check is not used.
const VALID_FOR: Duration = Duration::from_secs(7);

/// The statements that a process needs, and what the last check found about them.
#[derive(Clone)]
pub(crate) struct Watch {
    kinds: &'static [&'static StatementKind],
    check: Arc<Mutex<LastCheck>>,
    nodes: Arc<Mutex<LastLook>>,
}

/// What the last look at the nodes found.
#[derive(Debug, Default)]
struct LastLook {
    /// The names of all nodes.
    names: Vec<String>,
    /// Of several nodes only.
    looks: Vec<NodeLook>,
    /// The problems that the log has already.
    logged: Vec<String>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("problems", &self.problems()).finish_non_exhaustive()
    }
}

/// What the last check found.
#[derive(Debug)]
struct LastCheck {
    /// Why the database cannot be reached or used at all.
    away: Option<String>,
    obstacles: Vec<Obstacle>,
    /// The processes whose locks our statements wait for.
    holders: Vec<String>,
    at: Option<Instant>,
    /// When the check began, by the process's clock. A later failure is not reported before the next check.
    began: u64,
    /// The problems that the log has already.
    logged: Vec<String>,
}

impl Watch {
    pub(crate) fn new(kinds: &'static [&'static StatementKind]) -> Self {
        let check = LastCheck {
            away: Some("the database was not reached yet".to_owned()),
            obstacles: Vec::new(),
            holders: Vec::new(),
            at: None,
            began: 0,
            logged: Vec::new(),
        };
        Self { kinds, check: Arc::new(Mutex::new(check)), nodes: Arc::default() }
    }

    /// Each node, and its state.
    pub(crate) fn nodes(&self) -> Vec<NodeReport> {
        let last = self.last_look();
        match (last.looks.as_slice(), last.names.as_slice()) {
            ([], [node]) => vec![self.only_node(node)],
            ([], names) => names.iter().map(|name| report(name, NodeState::Unknown, None)).collect(),
            (looks, _) => looks.iter().map(NodeLook::report).collect(),
        }
    }

    /// A database with one node is as the last check found it.
    fn only_node(&self, name: &str) -> NodeReport {
        let check = self.check();
        match &check.away {
            Some(_) if check.at.is_none() => report(name, NodeState::Unknown, None),
            Some(why) => report(name, NodeState::Away, Some(why.clone())),
            None if check.obstacles.iter().any(Obstacle::stops_everything) => {
                report(name, NodeState::ReadOnly, None)
            }
            None => report(name, NodeState::TakesWrites, None),
        }
    }

    /// What is wrong with the nodes while one of them serves.
    pub(crate) fn node_problems(&self) -> Vec<String> {
        node_states::problems(&self.last_look().looks)
    }

    pub(super) fn set_nodes(&self, nodes: &DatabaseNodes) {
        self.last_look().names = nodes.names();
    }

    /// Keeps what a look has found, and logs the problems that are new.
    pub(super) fn record_looks(&self, looks: Vec<NodeLook>) {
        let problems = node_states::problems(&looks);
        let mut last = self.last_look();
        for problem in problems.iter().filter(|problem| !last.logged.contains(problem)) {
            tracing::warn!(problem, "a node of the database");
        }
        if problems.is_empty() && !last.logged.is_empty() {
            tracing::info!("nothing is wrong with the database's nodes any more");
        }
        (last.looks, last.logged) = (looks, problems);
    }

    fn last_look(&self) -> MutexGuard<'_, LastLook> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each problem, with its remedy; empty when the process can do all that it needs.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems_in(&self.check())
    }

    fn problems_in(&self, check: &LastCheck) -> Vec<String> {
        if let Some(away) = &check.away {
            return vec![away.clone()];
        }
        if check.at.is_none_or(|at| at.elapsed() > VALID_FOR) {
            return vec!["the database does not answer: see pg_stat_activity and its log".to_owned()];
        }
        let mut problems = Vec::new();
        for kind in self.kinds {
            let obstacles: Vec<_> = check
                .obstacles
                .iter()
                .filter(|obstacle| obstacle.concerns(kind))
                .map(|o| o.message.clone())
                .collect();
            let failure = kind.last_failure().filter(|failure| failure.at <= check.began);
            if failure.is_none() && kind.works() {
                continue;
            }
            match failure {
                Some(failure) if obstacles.is_empty() => {
                    problems.push(failure_text(kind, &failure, &check.holders));
                }
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

    /// Reports that the database cannot be used, as the only problem.
    pub(crate) fn set_away(&self, why: &str) {
        let mut check = self.check();
        check.away = Some(why.to_owned());
        check.at = Some(Instant::now());
    }

    /// Checks, and looks at the nodes, until `stop`.
    pub(super) async fn run(self, nodes: DatabaseNodes, pool: PgPool, stop: CancellationToken, pulse: Pulse) {
        let looking = self.clone().keep_looking(nodes.clone(), pool.clone());
        tokio::join!(stop.run_until_cancelled(looking), self.keep_checking(nodes, pool, &stop, pulse));
    }

    /// Looks at all nodes, where there are several. No check waits for it.
    async fn keep_looking(self, nodes: DatabaseNodes, pool: PgPool) {
        while nodes.are_several() {
            tokio::time::sleep(LOOKS_EVERY).await;
            let looks = node_states::look_at_all(&nodes).await;
            let used = nodes::name(&pool.connect_options());
            if let Some(NodeLook { name, options: Some(options), .. }) = node_states::successor(&looks, &used)
            {
                tracing::warn!(from = used, to = name, "the node in use is an old primary; leaving it");
                pool.set_connect_options(options.clone());
                retire::retire_silent_connections();
                CHECK_NOW.notify_one();
            }
            self.record_looks(looks);
        }
    }

    async fn keep_checking(self, nodes: DatabaseNodes, pool: PgPool, stop: &CancellationToken, pulse: Pulse) {
        let node = nodes::name(&pool.connect_options());
        let mut checker = Checker {
            watch: self,
            nodes,
            own: None,
            node,
            pool,
            locks: Locks::default(),
            failed_at: 0,
            retirements: retire::retirements(),
        };
        loop {
            pulse.step("checking the database");
            if stop.run_until_cancelled(Box::pin(checker.check())).await.is_none() {
                return;
            }
            pulse.idle();
            let woken = async {
                tokio::time::sleep(AT_LEAST).await;
                let _ = timeout(EVERY, CHECK_NOW.notified()).await;
            };
            if stop.run_until_cancelled(woken).await.is_none() {
                return;
            }
        }
    }

    fn check(&self) -> MutexGuard<'_, LastCheck> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the result of a check, and logs the problems that are new.
    fn record(&self, began: u64, away: Option<String>, found: Findings) {
        let Findings { obstacles, holders } = found;
        let mut check = self.check();
        (check.away, check.obstacles, check.at, check.began) = (away, obstacles, Some(Instant::now()), began);
        if !holders.is_empty() || !self.kinds.iter().any(|kind| waits_for_a_lock(kind)) {
            check.holders = holders;
        }
        let problems = self.problems_in(&check);
        for problem in problems.iter().filter(|problem| !check.logged.contains(problem)) {
            tracing::warn!(problem, "not ready: the database");
        }
        if problems.is_empty() && !check.logged.is_empty() {
            tracing::info!("the database can do all that is needed again");
        }
        check.logged = problems;
    }
}

fn report(name: &str, state: NodeState, reason: Option<String>) -> NodeReport {
    NodeReport { name: name.to_owned(), of: NodeServer::Database, state, reason }
}

fn waits_for_a_lock(kind: &StatementKind) -> bool {
    kind.last_failure().is_some_and(|failure| failure.code.as_deref() == Some("55P03"))
}

/// The problem that a statement's own error shows, with its remedy.
fn failure_text(kind: &StatementKind, failure: &StatementFailure, holders: &[String]) -> String {
    let StatementFailure { cause, code, .. } = failure;
    let remedy = match code.as_deref() {
        Some("55P03") if !holders.is_empty() => {
            return format!("{:?} fails: {cause}; {}", kind.name, holders.join("; "));
        }
        Some("55P03") => ": see pg_locks for who holds it",
        Some("53100") => {
            ". What to do: free space on the disk of the database's server, or enlarge it (df -h there shows it)"
        }
        Some("0A000") => "; it is repeated on another connection",
        _ => "",
    };
    format!("{:?} fails: {cause}{remedy}", kind.name)
}

/// Whether a statement that got no connection at `failed` had begun to wait while the database was away, which a check
/// last found at `away_at`. Then the pool is not the cause.
fn waited_while_away(failed: u64, away_at: u64) -> bool {
    let waited = nodes::ACQUIRED_WITHIN + Duration::from_secs(1);
    failed.saturating_sub(away_at) < u64::try_from(waited.as_micros()).unwrap_or(u64::MAX)
}

/// Checks the database on a connection of its own.
struct Checker {
    watch: Watch,
    nodes: DatabaseNodes,
    own: Option<NodeConnection>,
    /// The node that the pool connects to.
    node: String,
    pool: PgPool,
    locks: Locks,
    /// When a check last failed, or opened a connection; by the process's clock.
    failed_at: u64,
    retirements: tokio::sync::watch::Receiver<()>,
}

/// What a check that got through has found.
#[derive(Default)]
struct Findings {
    obstacles: Vec<Obstacle>,
    /// The processes whose locks our statements wait for.
    holders: Vec<String>,
}

/// Why a check did not get through.
enum CheckError {
    Away(String),
    /// No answer in time.
    Silent,
}

impl Checker {
    async fn check(&mut self) {
        // A look has found that this node is an old primary.
        let used = nodes::name(&self.pool.connect_options());
        self.own.take_if(|own| nodes::name(&own.node) != used);
        let (is_fresh, began) = (self.own.is_none(), retire::now());
        let mut found = self.try_once().await;
        let has_failed = is_fresh || found.is_err();
        if let (Err(error), false) = (&found, is_fresh) {
            // Perhaps only the connection is at fault: a second try on a new one shows it.
            let silent = matches!(error, CheckError::Silent);
            self.leave_node();
            found = self.try_once().await;
            match (&found, silent) {
                (Ok(_), true) => retire::retire_silent_connections(),
                (Ok(_), false) => retire::retire_connections(),
                (Err(_), _) => {}
            }
        }
        if has_failed {
            self.failed_at = retire::now();
        }
        let (away, found) = match found {
            Ok(found) => (self.why_pool_is_empty().await, found),
            Err(error) => {
                self.own = None;
                (Some(self.away_text(error)), Findings::default())
            }
        };
        if found.obstacles.iter().any(Obstacle::stops_everything) {
            // A server that takes no writes is left: another node may take them by now.
            self.leave_node();
            retire::retire_connections();
        }
        self.watch.record(began, away, found);
        self.close_idle_retired();
    }

    /// Closes this connection. The next one goes to another node, if there is one that takes writes.
    fn leave_node(&mut self) {
        if let Some(own) = self.own.take() {
            self.nodes.cluster.order.failed(&nodes::name(&own.node));
        }
    }

    fn away_text(&self, error: CheckError) -> String {
        match error {
            CheckError::Away(why) => why,
            CheckError::Silent => {
                let (node, limit) = (&self.node, CHECK_WITHIN.as_secs());
                format!("the database is away ({node}: no answer within {limit} s)")
            }
        }
    }

    async fn try_once(&mut self) -> Result<Findings, CheckError> {
        if self.own.is_none() {
            let opened =
                Box::pin(self.nodes.connect()).await.map_err(|error| CheckError::Away(error.to_string()))?;
            self.follow(&opened);
            self.own = Some(opened);
        }
        let Some(own) = &mut self.own else { return Err(CheckError::Silent) };
        let (kinds, locks) = (self.watch.kinds, &mut self.locks);
        // Once a statement has waited for a lock in vain, every lock is reported, however new it is.
        let held_for =
            if kinds.iter().any(|kind| waits_for_a_lock(kind)) { Duration::ZERO } else { probe::HELD_FOR };
        let checking = async {
            let obstacles = probe::obstacles(&mut own.connection, kinds, locks, held_for).await?;
            let holders =
                if held_for.is_zero() { probe::holders(&mut own.connection).await? } else { Vec::new() };
            Ok(Findings { obstacles, holders })
        };
        match timeout(CHECK_WITHIN, Box::pin(checking)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err::<_, sqlx::Error>(error)) => {
                Err(CheckError::Away(UnusableDatabase::Away(error.summary()).to_string()))
            }
            Err(_) => Err(CheckError::Silent),
        }
    }

    /// Lets the pool's next connections go to the node of this one.
    fn follow(&mut self, opened: &NodeConnection) {
        let node = nodes::name(&opened.node);
        self.pool.set_connect_options(opened.node.clone());
        if node != self.node {
            tracing::warn!(from = self.node, to = node, "another node of the database is used from now on");
            self.node = node;
            retire::retire_connections();
        }
    }

    /// Why the pool has no connection to give, if statements fail because of that.
    async fn why_pool_is_empty(&self) -> Option<String> {
        let failures = self.watch.kinds.iter().filter_map(|kind| kind.last_failure());
        let last = failures.filter(|failure| failure.without_connection).map(|failure| failure.at).max()?;
        let why = if waited_while_away(last, self.failed_at) {
            "it answers again, and new connections are being opened".to_owned()
        } else {
            nodes::why_no_connection().await
        };
        Some(format!("the pool has no free connection to the database: {why}"))
    }

    /// Closes idle connections that were retired now, and not only when a statement needs one.
    fn close_idle_retired(&mut self) {
        if !self.retirements.has_changed().unwrap_or_default() {
            return;
        }
        self.retirements.mark_unchanged();
        // The pool checks each on its way back.
        let idle: Vec<_> = (0..self.pool.num_idle()).map_while(|_| self.pool.try_acquire()).collect();
        drop(idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_began_while_the_database_was_away_is_not_the_pools_fault() {
        const SECOND: u64 = 1_000_000;
        let away_at = 3_600 * SECOND;
        assert!(waited_while_away(away_at - SECOND, away_at));
        assert!(waited_while_away(away_at + 5 * SECOND, away_at));
        assert!(!waited_while_away(away_at + 7 * SECOND, away_at));
        assert!(!waited_while_away(away_at, 0));
    }
}
