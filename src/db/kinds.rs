//! The kinds of statements that worker and gateway run: what each needs, whether it may be repeated, and how it last went.

use super::{
    error::{Passing, action},
    leave,
    sqlstate::Action,
};
use std::{
    borrow::Cow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// For how long a result speaks for the next statement of its kind.
const COUNTS_FOR: Duration = Duration::from_secs(5);

/// Wakes the watch of the database: a statement has failed.
pub(super) static LOOK: Notify = Notify::const_new();

/// A right on a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Select,
    Insert,
    Update,
    Delete,
}

impl Right {
    /// As SQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

use Right::{Delete, Insert, Select, Update};

/// What a second run of a statement does, whose first may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It changes nothing.
    Harmless,
    /// It counts or takes once more. So it is only made when the first was surely not carried out.
    Counts,
}

use Repeat::{Counts, Harmless};

/// A table, and the rights on it.
pub type Need = (&'static str, &'static [Right]);

/// One kind of statement.
#[derive(Debug)]
pub struct Kind {
    /// For the log and for people.
    pub name: &'static str,
    pub repeat: Repeat,
    pub needs: &'static [Need],
    state: State,
}

#[derive(Debug)]
struct State {
    /// Microseconds of the process's clock; 0 for never.
    answered_at: AtomicU64,
    /// Callers that try again and again.
    waiting: AtomicUsize,
    failed: Mutex<Option<Failed>>,
}

/// How a statement failed last.
#[derive(Debug, Clone)]
pub struct Failed {
    pub(super) at: u64,
    /// SQLSTATE, if the server gave one.
    pub code: Option<String>,
    pub cause: String,
    /// Whether no connection was to be had.
    pub without_connection: bool,
    /// Whether the connection was at fault, and another may do.
    lost: bool,
}

/// A caller that waits for a kind of statement to work again, until this is dropped.
#[derive(Debug)]
pub struct Waiting(&'static Kind);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.state.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Kind {
    const fn new(name: &'static str, repeat: Repeat, needs: &'static [Need]) -> Self {
        let state =
            State { answered_at: AtomicU64::new(0), waiting: AtomicUsize::new(0), failed: Mutex::new(None) };
        Self { name, repeat, needs, state }
    }

    /// A statement of this kind was carried out, or refused for its data.
    pub fn is_answered(&self) {
        self.state.answered_at.store(leave::now(), Ordering::Release);
    }

    /// A statement of this kind failed, and its data is not at fault.
    pub fn has_failed(&self, error: &impl Passing) {
        let database = error.database_error();
        let code = match database {
            Some(sqlx::Error::Database(error)) => error.code().map(Cow::into_owned),
            _ => None,
        };
        let without_connection = matches!(database, Some(sqlx::Error::PoolTimedOut));
        let lost = database.is_some_and(|error| action(error) == Action::LeaveConnection);
        let failed = Failed { at: leave::now(), code, cause: error.summary(), without_connection, lost };
        *self.state.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
    }

    /// Notes how a statement of this kind went.
    pub fn note<T, E: Passing>(&self, result: &Result<T, E>) {
        match result {
            Err(error) if error.passes() => {
                noticed(error.database_error());
                self.has_failed(error);
            }
            _ => self.is_answered(),
        }
    }

    /// From now on a caller tries again and again.
    pub fn wait(&'static self) -> Waiting {
        self.state.waiting.fetch_add(1, Ordering::AcqRel);
        Waiting(self)
    }

    /// How the last statement failed, if that still counts.
    pub fn trouble(&self) -> Option<Failed> {
        let failed = self.state.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let waited_for = self.state.waiting.load(Ordering::Acquire) > 0;
        let counts = failed.at >= self.state.answered_at.load(Ordering::Acquire)
            && (waited_for || (is_recent(failed.at) && !failed.lost));
        counts.then_some(failed)
    }

    /// Whether the last statement went well, a moment ago: there is no need to ask whether it would.
    pub fn is_proven(&self) -> bool {
        is_recent(self.state.answered_at.load(Ordering::Acquire)) && self.trouble().is_none()
    }
}

/// What follows for connections from an error.
fn noticed(error: Option<&sqlx::Error>) {
    if error.is_some_and(|error| action(error) == Action::LeaveConnection) {
        leave::leave_connections();
    }
    LOOK.notify_one();
}

fn is_recent(at: u64) -> bool {
    at > 0 && leave::now().saturating_sub(at) < u64::try_from(COUNTS_FOR.as_micros()).unwrap_or(u64::MAX)
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $repeat:ident, [$($table:literal: $($right:ident)+),+];)*) => {
        $($(#[$doc])* pub static $kind: Kind = Kind::new($name, $repeat, &[$(($table, &[$($right),+])),+]);)*

        #[cfg(test)]
        static ALL: &[&Kind] = &[$(&$kind),*];
    };
}

kinds! {
    INSERT_SESSIONS = "insert sessions", Harmless, ["sessions": Select Insert, "optouts": Select];
    RECORD_OUTCOMES = "record outcomes", Harmless, ["sessions": Select Update, "events": Insert];
    FIND_SESSION = "find a session", Harmless, ["sessions": Select];
    RELEASE_MESSAGE_ID = "release a message id", Harmless, ["sessions": Select Update];
    /// Made again, it might mark the row of an equal request that is still in hand.
    ACKNOWLEDGE = "mark requests as acknowledged", Counts, ["sessions": Select Update];
    CLAIM_SESSION = "claim a session", Harmless, ["sessions": Select Update, "groups": Select, "optouts": Select];
    ACCEPTED = "note that a text was accepted", Harmless, ["sessions": Select Update, "events": Insert];
    LOOK_AT_PERMISSION = "look at the group and its opt-outs", Harmless, ["groups": Select, "optouts": Select];
    COUNT_LOOK = "count a look", Harmless, ["sessions": Select Update];
    WHOSE_TEXTS = "find whose texts these are", Harmless, ["sessions": Select];
    SWEEP = "move sessions on", Harmless, ["sessions": Select Update, "groups": Select, "events": Insert];
    RETAIN = "blank and delete old sessions", Harmless, ["sessions": Select Update Delete, "inbound_texts": Select Update Delete];
    LOOK_FOR_EVENTS = "look for events", Harmless, ["events": Select];
    PUBLISH_EVENTS = "publish events", Harmless, ["events": Select Delete];
    LOOK_FOR_CHANGES = "look for changes of the groups", Harmless, ["settings_version": Select];
    READ_GROUPS = "read the groups", Harmless,
        ["groups": Select, "group_api_keys": Select, "group_jwt_secrets": Select,
         "addresses": Select];
    READ_OPTOUT_KEY = "read the key of the opt-outs", Harmless, ["optout_key": Select];
    FIND_WEBSITE_SESSION = "find a website session", Harmless, ["website_sessions": Select];
    /// What was taken twice is lost: a limit errs on the side of less.
    TAKE_FROM_BUCKET = "take from a bucket", Counts, ["rate_buckets": Select Insert Update];
    GIVE_BACK_TO_BUCKET = "give back to a bucket", Counts, ["rate_buckets": Select Update];
    RESERVE_TIME = "reserve a sender's time", Counts, ["rate_buckets": Select Insert Update];
    FORGET_BUCKETS = "delete full buckets", Harmless, ["rate_buckets": Select Delete];
    COUNT_SUSPECT = "count a suspect's try", Counts, ["suspects": Select Insert Update];
    FORGET_SUSPECT = "forget a suspect", Harmless, ["suspects": Select Delete];

    LOOK_UP = "look a session up", Harmless, ["sessions": Select];
    JOIN = "join a session", Harmless, ["sessions": Select Update, "groups": Select, "events": Insert];
    /// A second run finds the session ended, and would count a wrong guess.
    END = "end a session", Counts, ["sessions": Select Update, "groups": Select, "events": Insert];
    VISIT = "show a session's page", Harmless, ["sessions": Select];
    HEAR = "note a receipt", Harmless, ["sessions": Select Update, "events": Insert];
    OPT_OUT = "record an opt-out", Harmless, ["optouts": Select Insert, "inbound_texts": Select Insert Update];
    OPT_IN = "remove an opt-out", Harmless, ["optouts": Select Delete, "inbound_texts": Select Insert Update];
    PEEK_AT_GUESSES = "look at wrong guesses", Harmless, ["rate_buckets": Select];
    COUNT_GUESS = "count a wrong guess", Counts, ["rate_buckets": Select Insert Update];
}

/// What a worker cannot be without.
pub static OF_THE_WORKER: &[&Kind] = &[
    &INSERT_SESSIONS,
    &RECORD_OUTCOMES,
    &FIND_SESSION,
    &RELEASE_MESSAGE_ID,
    &ACKNOWLEDGE,
    &CLAIM_SESSION,
    &ACCEPTED,
    &LOOK_AT_PERMISSION,
    &OPT_OUT,
    &COUNT_LOOK,
    &WHOSE_TEXTS,
    &SWEEP,
    &RETAIN,
    &LOOK_FOR_EVENTS,
    &PUBLISH_EVENTS,
    &LOOK_FOR_CHANGES,
    &READ_GROUPS,
    &READ_OPTOUT_KEY,
    &FIND_WEBSITE_SESSION,
    &TAKE_FROM_BUCKET,
    &GIVE_BACK_TO_BUCKET,
    &RESERVE_TIME,
    &FORGET_BUCKETS,
    &COUNT_SUSPECT,
    &FORGET_SUSPECT,
];

/// What a gateway cannot be without.
pub static OF_THE_GATEWAY: &[&Kind] = &[
    &LOOK_FOR_CHANGES,
    &READ_GROUPS,
    &READ_OPTOUT_KEY,
    &FIND_WEBSITE_SESSION,
    &LOOK_UP,
    &JOIN,
    &END,
    &VISIT,
    &HEAR,
    &OPT_OUT,
    &OPT_IN,
    &PEEK_AT_GUESSES,
    &COUNT_GUESS,
];

#[cfg(test)]
mod tests {
    use super::*;

    static OF_A_TEST: Kind = Kind::new("a test", Harmless, &[("sessions", &[Select])]);

    #[test]
    fn each_kind_belongs_to_a_process_and_has_a_name_of_its_own() {
        for kind in ALL {
            let is_in = |all: &[&Kind]| all.iter().any(|known| std::ptr::eq(*known, *kind));
            assert!(is_in(OF_THE_WORKER) || is_in(OF_THE_GATEWAY), "{}", kind.name);
            assert_eq!(ALL.iter().filter(|other| other.name == kind.name).count(), 1, "{}", kind.name);
        }
    }

    #[test]
    fn the_last_result_counts_and_one_who_waits_keeps_a_failure_alive() {
        let kind = &OF_A_TEST;
        assert!(kind.trouble().is_none() && !kind.is_proven());
        kind.note(&Ok::<_, sqlx::Error>(()));
        assert!(kind.is_proven());
        kind.note(&Err::<(), _>(sqlx::Error::PoolTimedOut));
        assert!(!kind.is_proven() && kind.trouble().is_some_and(|failed| failed.without_connection));
        // The data's fault is an answer.
        kind.note(&Err::<(), _>(sqlx::Error::RowNotFound));
        assert!(kind.is_proven() && kind.trouble().is_none());
        kind.note(&Err::<(), _>(sqlx::Error::PoolTimedOut));
        // It does not speak for the next statement any more, unless somebody waits for that.
        kind.state.failed.lock().unwrap().as_mut().unwrap().at = leave::now() - 5_000_000;
        kind.state.answered_at.store(1, Ordering::Release);
        assert!(kind.trouble().is_none());
        let waiting = kind.wait();
        assert!(kind.trouble().is_some());
        drop(waiting);
        assert!(kind.trouble().is_none());
    }
}
