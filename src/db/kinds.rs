//! The kinds of statements that worker and gateway run: what each needs, whether it may be repeated, and how it last went.

use super::{
    error::{StatementError, action},
    retire,
    sqlstate::ErrorAction,
};
use std::{
    borrow::Cow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use strum::IntoStaticStr;
use tokio::sync::Notify;

/// For how long the last result predicts the next statement of its kind.
const RECENT: Duration = Duration::from_secs(5);

/// Wakes the watch of the database after a statement failed.
pub(super) static CHECK_NOW: Notify = Notify::const_new();

/// A right on a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum TableRight {
    Select,
    Insert,
    Update,
    Delete,
}

impl TableRight {
    /// As SQL writes it.
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

use TableRight::{Delete, Insert, Select, Update};

/// What happens when a statement runs twice, because the answer to its first run was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// The second run changes nothing more.
    Harmless,
    /// The second run counts or takes once more. So it only follows a first that surely was not carried out.
    Counts,
}

use Repeat::{Counts, Harmless};

/// A table, and the rights that are needed on it.
pub(crate) type Need = (&'static str, &'static [TableRight]);

/// One kind of statement, and how it last went.
#[derive(Debug)]
pub(crate) struct StatementKind {
    /// For the log and the readiness report.
    pub name: &'static str,
    pub repeat: Repeat,
    pub needs: &'static [Need],
    state: StatementHistory,
}

#[derive(Debug)]
struct StatementHistory {
    /// Microseconds of the process's clock; 0 for never.
    answered_at: AtomicU64,
    /// How many callers repeat such a statement until it works.
    waiting: AtomicUsize,
    failed: Mutex<Option<StatementFailure>>,
}

/// The last failure of a kind of statement.
#[derive(Debug, Clone)]
pub(crate) struct StatementFailure {
    pub(super) at: u64,
    /// The SQLSTATE, if the server sent one.
    pub code: Option<String>,
    pub cause: String,
    /// Whether the pool had no connection to give.
    pub without_connection: bool,
    /// Whether the connection was the cause, so that the same statement may work on another.
    lost: bool,
}

/// Counts a caller that repeats a statement until it works. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct WaitGuard(&'static StatementKind);

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.0.state.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl StatementKind {
    const fn new(name: &'static str, repeat: Repeat, needs: &'static [Need]) -> Self {
        let state = StatementHistory {
            answered_at: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            failed: Mutex::new(None),
        };
        Self { name, repeat, needs, state }
    }

    /// Notes that a statement of this kind was carried out, or refused because of its data.
    pub(crate) fn note_answer(&self) {
        self.state.answered_at.store(retire::now(), Ordering::Release);
    }

    /// Notes that a statement of this kind failed, and not because of its data.
    pub(crate) fn note_failure(&self, error: &impl StatementError) {
        let database = error.database_error();
        let code = match database {
            Some(sqlx::Error::Database(error)) => error.code().map(Cow::into_owned),
            _ => None,
        };
        let without_connection = matches!(database, Some(sqlx::Error::PoolTimedOut));
        let lost = database.is_some_and(|error| action(error) == ErrorAction::RetireConnections);
        let failed =
            StatementFailure { at: retire::now(), code, cause: error.summary(), without_connection, lost };
        *self.state.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
    }

    /// Notes how a statement of this kind went.
    pub(crate) fn note<T, E: StatementError>(&self, result: &Result<T, E>) {
        match result {
            Err(error) if error.is_transient() => {
                react(error.database_error());
                self.note_failure(error);
            }
            _ => self.note_answer(),
        }
    }

    /// Notes that a caller repeats such a statement until it works.
    pub(crate) fn wait(&'static self) -> WaitGuard {
        self.state.waiting.fetch_add(1, Ordering::AcqRel);
        WaitGuard(self)
    }

    /// The last failure, while it still counts: no success came later; and a caller waits for such a statement, or the
    /// failure is recent and another connection would not have helped.
    pub(crate) fn last_failure(&self) -> Option<StatementFailure> {
        let failed = self.state.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let waited_for = self.state.waiting.load(Ordering::Acquire) > 0;
        let counts = failed.at >= self.state.answered_at.load(Ordering::Acquire)
            && (waited_for || (is_recent(failed.at) && !failed.lost));
        counts.then_some(failed)
    }

    /// Whether the last statement succeeded, and recently. Then its needs are not checked.
    pub(crate) fn works(&self) -> bool {
        is_recent(self.state.answered_at.load(Ordering::Acquire)) && self.last_failure().is_none()
    }
}

/// How many callers repeat a statement until it works.
pub(super) fn waiting() -> usize {
    let all = WORKER_STATEMENTS.iter().chain(GATEWAY_STATEMENTS.iter().filter(|kind| !is_worker(kind)));
    all.map(|kind| kind.state.waiting.load(Ordering::Acquire)).sum()
}

fn is_worker(kind: &StatementKind) -> bool {
    WORKER_STATEMENTS.iter().any(|known| std::ptr::eq(*known, kind))
}

/// Retires the connections if one of them was the cause, and wakes the watch.
fn react(error: Option<&sqlx::Error>) {
    if error.is_some_and(|error| action(error) == ErrorAction::RetireConnections) {
        retire::retire_connections();
    }
    CHECK_NOW.notify_one();
}

fn is_recent(at: u64) -> bool {
    at > 0 && retire::now().saturating_sub(at) < u64::try_from(RECENT.as_micros()).unwrap_or(u64::MAX)
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $repeat:ident, [$($table:literal: $($right:ident)+),+];)*) => {
        $($(#[$doc])* pub(crate) static $kind: StatementKind = StatementKind::new($name, $repeat, &[$(($table, &[$($right),+])),+]);)*

        #[cfg(test)]
        static ALL: &[&StatementKind] = &[$(&$kind),*];
    };
}

kinds! {
    INSERT_SESSIONS = "insert sessions", Harmless, ["sessions": Select Insert, "optouts": Select];
    RECORD_OUTCOMES = "record outcomes", Harmless, ["sessions": Select Update, "events": Insert, "steps": Select Insert];
    FIND_SESSION = "find a session", Harmless, ["sessions": Select];
    RELEASE_MESSAGE_ID = "release a message id", Harmless, ["sessions": Select Update];
    /// A second run might mark the row of an equal request that is still in flight.
    ACKNOWLEDGE = "mark requests as acknowledged", Counts, ["sessions": Select Update];
    CLAIM_SESSION = "claim a session", Harmless,
        ["sessions": Select Update, "groups": Select, "optouts": Select, "steps": Select Insert];
    NOTE_ACCEPTED_TEXT = "note that a text was accepted", Harmless,
        ["sessions": Select Update, "events": Insert, "steps": Select Insert];
    LOOK_AT_PERMISSION = "look at the group and its opt-outs", Harmless, ["groups": Select, "optouts": Select];
    COUNT_LOOK = "count a look", Harmless, ["sessions": Select Update, "steps": Select Insert];
    FIND_TEXT_OWNERS = "find whose texts these are", Harmless, ["sessions": Select];
    SWEEP = "move sessions on", Harmless,
        ["sessions": Select Update, "groups": Select, "events": Insert, "steps": Select Insert];
    RETAIN = "blank and delete old sessions", Harmless, ["sessions": Select Update Delete, "steps": Select Delete, "inbound_texts": Select Update Delete];
    LOOK_FOR_EVENTS = "look for events", Harmless, ["events": Select];
    PUBLISH_EVENTS = "publish events", Harmless, ["events": Select Delete];
    LOOK_FOR_CHANGES = "look for changes of the groups", Harmless, ["settings_version": Select];
    READ_GROUPS = "read the groups", Harmless,
        ["groups": Select, "group_api_keys": Select, "group_jwt_secrets": Select,
         "addresses": Select];
    /// Uses of keys that are written twice are the same uses.
    NOTE_KEY_USES = "note when keys were used", Harmless, ["key_uses": Select Insert Update];
    READ_OPTOUT_KEY = "read the key of the opt-outs", Harmless, ["optout_key": Select];
    FIND_WEBSITE_SESSION = "find a website session", Harmless, ["website_sessions": Select];
    /// Tokens that are taken twice are lost: the limit then lets fewer through, never more.
    TAKE_FROM_BUCKET = "take from a bucket", Counts, ["rate_buckets": Select Insert Update];
    GIVE_BACK_TO_BUCKET = "give back to a bucket", Counts, ["rate_buckets": Select Update];
    RESERVE_TIME = "reserve a slot of a From number", Counts, ["rate_buckets": Select Insert Update];
    FORGET_BUCKETS = "delete full buckets", Harmless, ["rate_buckets": Select Delete];
    COUNT_SUSPECT = "count a suspect's try", Counts, ["suspects": Select Insert Update];
    FORGET_SUSPECT = "forget a suspect", Harmless, ["suspects": Select Delete];
    KEEP_MARKER = "keep the marker", Harmless,
        ["database_marker": Select Update, "database_marker_copies": Select Insert, "database_rewinds": Select Insert,
         "sessions": Select Update];
    RESUME_SESSIONS = "resume open invites", Harmless,
        ["sessions": Select Update, "groups": Select, "database_marker": Select Update, "steps": Select Insert];
    MEASURE = "measure for /metrics", Harmless, ["sessions": Select, "events": Select];

    LOOK_UP = "look a session up", Harmless, ["sessions": Select];
    JOIN = "join a session", Harmless, ["sessions": Select Update, "groups": Select, "events": Insert];
    /// A second run finds the session already ended, and would count a wrong guess.
    END = "end a session", Counts, ["sessions": Select Update, "groups": Select, "events": Insert];
    VISIT = "show a session's page", Harmless, ["sessions": Select];
    NOTE_RECEIPT = "note a receipt", Harmless, ["sessions": Select Update, "events": Insert, "steps": Select Insert];
    OPT_OUT = "record an opt-out", Harmless, ["optouts": Select Insert, "inbound_texts": Select Insert Update];
    OPT_IN = "remove an opt-out", Harmless, ["optouts": Select Delete, "inbound_texts": Select Insert Update];
    PEEK_AT_GUESSES = "look at wrong guesses", Harmless, ["rate_buckets": Select];
    COUNT_GUESS = "count a wrong guess", Counts, ["rate_buckets": Select Insert Update];

    KEEP_STEP = "keep a step of an invite", Harmless, ["sessions": Select, "steps": Select Insert];
    SHOW_CONSOLE = "show the console", Harmless,
        ["sessions": Select, "events": Select, "processes": Select, "groups": Select, "group_api_keys": Select,
         "group_jwt_secrets": Select, "key_uses": Select, "audit_log": Select];
    /// A change of a group bumps the version.
    CHANGE_BY_CONSOLE = "change a group by the console", Counts,
        ["groups": Select Update, "settings_version": Select Update, "sessions": Select Update, "audit_log": Insert];
    HEARTBEAT = "report that the process runs", Harmless, ["processes": Select Insert Update Delete];
}

/// The statements that only inform operators. A process works without them.
pub(crate) static OPERATORS_STATEMENTS: &[&StatementKind] = &[&HEARTBEAT, &KEEP_STEP];

/// The statements of the gateway's console. A gateway does its work without them.
pub(crate) static CONSOLE_STATEMENTS: &[&StatementKind] = &[&SHOW_CONSOLE, &CHANGE_BY_CONSOLE];

/// The statements that a worker needs.
pub(crate) static WORKER_STATEMENTS: &[&StatementKind] = &[
    &INSERT_SESSIONS,
    &RECORD_OUTCOMES,
    &FIND_SESSION,
    &RELEASE_MESSAGE_ID,
    &ACKNOWLEDGE,
    &CLAIM_SESSION,
    &NOTE_ACCEPTED_TEXT,
    &LOOK_AT_PERMISSION,
    &OPT_OUT,
    &COUNT_LOOK,
    &FIND_TEXT_OWNERS,
    &SWEEP,
    &RETAIN,
    &LOOK_FOR_EVENTS,
    &PUBLISH_EVENTS,
    &LOOK_FOR_CHANGES,
    &READ_GROUPS,
    &NOTE_KEY_USES,
    &READ_OPTOUT_KEY,
    &FIND_WEBSITE_SESSION,
    &TAKE_FROM_BUCKET,
    &GIVE_BACK_TO_BUCKET,
    &RESERVE_TIME,
    &FORGET_BUCKETS,
    &COUNT_SUSPECT,
    &FORGET_SUSPECT,
    &KEEP_MARKER,
    &RESUME_SESSIONS,
    &MEASURE,
];

/// The statements that a gateway needs.
pub(crate) static GATEWAY_STATEMENTS: &[&StatementKind] = &[
    &LOOK_FOR_CHANGES,
    &READ_GROUPS,
    &NOTE_KEY_USES,
    &READ_OPTOUT_KEY,
    &FIND_WEBSITE_SESSION,
    &LOOK_UP,
    &JOIN,
    &END,
    &VISIT,
    &NOTE_RECEIPT,
    &OPT_OUT,
    &OPT_IN,
    &PEEK_AT_GUESSES,
    &COUNT_GUESS,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    static TEST_KIND: StatementKind = StatementKind::new("a test", Harmless, &[("sessions", &[Select])]);

    #[test]
    fn each_kind_belongs_to_a_process_and_has_a_unique_name() {
        for kind in ALL {
            let is_in = |all: &[&StatementKind]| all.iter().any(|known| std::ptr::eq(*known, *kind));
            let is_known = [WORKER_STATEMENTS, GATEWAY_STATEMENTS, OPERATORS_STATEMENTS, CONSOLE_STATEMENTS]
                .into_iter()
                .any(is_in);
            assert!(is_known, "{}", kind.name);
            assert_eq!(ALL.iter().filter(|other| other.name == kind.name).count(), 1, "{}", kind.name);
        }
    }

    const RIGHTS: &str = include_str!("../../deploy/postgres/rights.sql");
    const CONSOLE_RIGHTS: &str = include_str!("../../deploy/postgres/console-rights.sql");

    /// The rights on each table that a script of deploy/postgres grants to a role.
    fn granted(script: &'static str, role: &str) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
        let end = format!(" to session_invite_{role};");
        let grants = script.lines().filter_map(|line| line.strip_prefix("grant ")?.strip_suffix(&*end));
        let grants = grants.map(|grant| grant.split_once(" on ").expect("rights and a table"));
        grants.map(|(rights, table)| (table, rights.split(", ").collect())).collect()
    }

    #[test]
    fn each_role_is_granted_what_its_statements_need_and_nothing_else() {
        for (role, own) in [("worker", WORKER_STATEMENTS), ("gateway", GATEWAY_STATEMENTS)] {
            // The first process of a database makes the key of the opt-outs.
            let mut needed = BTreeMap::from([("optout_key", BTreeSet::from(["insert"]))]);
            for (table, rights) in own.iter().chain(OPERATORS_STATEMENTS).flat_map(|kind| kind.needs) {
                needed.entry(*table).or_default().extend(rights.iter().map(|right| right.as_str()));
            }
            assert_eq!(granted(RIGHTS, role), needed, "deploy/postgres/rights.sql, {role}");
        }
    }

    #[test]
    fn a_gateway_with_a_console_is_granted_what_it_needs_besides() {
        let own = granted(RIGHTS, "gateway");
        let mut needed = BTreeMap::<_, BTreeSet<_>>::new();
        for (table, rights) in CONSOLE_STATEMENTS.iter().flat_map(|kind| kind.needs) {
            let rights = rights.iter().map(|right| right.as_str());
            let has = |right: &&str| own.get(table).is_some_and(|own| own.contains(right));
            needed.entry(*table).or_default().extend(rights.filter(|right| !has(right)));
        }
        needed.retain(|_, rights| !rights.is_empty());
        assert_eq!(granted(CONSOLE_RIGHTS, "gateway"), needed, "deploy/postgres/console-rights.sql");
    }

    #[test]
    fn the_last_result_counts_and_a_caller_that_waits_keeps_a_failure_alive() {
        let kind = &TEST_KIND;
        assert!(kind.last_failure().is_none() && !kind.works());
        kind.note(&Ok::<_, sqlx::Error>(()));
        assert!(kind.works());
        kind.note(&Err::<(), _>(sqlx::Error::PoolTimedOut));
        assert!(!kind.works() && kind.last_failure().is_some_and(|failed| failed.without_connection));
        // An error about the data is an answer.
        kind.note(&Err::<(), _>(sqlx::Error::RowNotFound));
        assert!(kind.works() && kind.last_failure().is_none());
        kind.note(&Err::<(), _>(sqlx::Error::PoolTimedOut));
        // After five seconds a failure counts only while a caller waits.
        kind.state.failed.lock().unwrap().as_mut().unwrap().at = retire::now() - 5_000_000;
        kind.state.answered_at.store(1, Ordering::Release);
        assert!(kind.last_failure().is_none());
        let waiting = kind.wait();
        assert!(kind.last_failure().is_some());
        drop(waiting);
        assert!(kind.last_failure().is_none());
    }
}
