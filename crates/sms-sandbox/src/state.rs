//! What all requests share.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::callback::Callbacks;
use super::faults::{Fate, Fault, Turn};
use super::store::Store;
use super::{Account, Settings};

pub(super) type Shared = Arc<State>;

pub(super) struct State {
    pub account: Option<Account>,
    pub stats: Stats,
    /// `None` when callbacks are off.
    pub callbacks: Option<Callbacks>,
    /// Cancelled when the server is to end.
    pub stopping: CancellationToken,
    fate: Mutex<Fate>,
    store: Mutex<Store>,
}

impl State {
    pub fn new(settings: Settings) -> io::Result<Self> {
        let stopping = CancellationToken::new();
        let callbacks = settings.callbacks.then(|| Callbacks::new(stopping.clone())).transpose()?;
        let seed = settings.seed.unwrap_or_else(rand::random);
        Ok(Self {
            account: settings.account,
            stats: Stats::default(),
            callbacks,
            stopping,
            fate: Mutex::new(Fate::new(settings.faults, seed)),
            store: Mutex::new(Store::new(settings.keep)),
        })
    }

    /// The faults. Held for a few instructions only, never over an await.
    pub fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages. Held briefly, never over an await.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `/sandbox/stats`.
    pub fn stats_json(&self) -> Value {
        let mut faults = Map::new();
        for fault in Fault::ALL {
            faults.insert(fault.name().to_owned(), get(&self.stats.faults[fault as usize]).into());
        }
        faults.insert("error".to_owned(), get(&self.stats.errors).into());
        let (kept, doubled) = {
            let store = self.store();
            (store.kept(), store.doubled())
        };
        json!({
            "posts": get(&self.stats.posts),
            "accepted": get(&self.stats.accepted),
            "lists": get(&self.stats.lists),
            "faults": faults,
            "kept": kept,
            "doubled": doubled,
            "open_connections": self.stats.open_connections.load(Ordering::Relaxed),
            "callbacks": self.callbacks.as_ref().map(Callbacks::stats_json),
        })
    }
}

/// What has happened since the start.
#[derive(Debug, Default)]
pub(super) struct Stats {
    pub posts: AtomicU64,
    pub accepted: AtomicU64,
    pub lists: AtomicU64,
    pub open_connections: Arc<AtomicUsize>,
    faults: [AtomicU64; Fault::ALL.len()],
    errors: AtomicU64,
}

impl Stats {
    pub fn count_turn(&self, turn: Turn) {
        match turn {
            Turn::Fine => {}
            Turn::Error { .. } => count(&self.errors),
            Turn::Fault(fault) => count(&self.faults[fault as usize]),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
