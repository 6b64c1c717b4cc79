//! The state that all requests share.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use strum::VariantArray;
use tokio_util::sync::CancellationToken;

use super::callback::CallbackSender;
use super::counters::{Counters, get};
use super::faults::{Fault, FaultInjector};
use super::store::MessageStore;
use super::{Account, Settings};

pub(super) type SharedState = Arc<SandboxState>;

pub(super) struct SandboxState {
    pub account: Option<Account>,
    pub counters: Counters,
    /// `None` when callbacks are off.
    pub callbacks: Option<CallbackSender>,
    /// Cancelled when the server has to end.
    pub stopping: CancellationToken,
    injector: Mutex<FaultInjector>,
    store: Mutex<MessageStore>,
}

impl SandboxState {
    pub(crate) fn new(settings: Settings) -> io::Result<Self> {
        let stopping = CancellationToken::new();
        let callbacks = settings.callbacks.then(|| CallbackSender::new(stopping.clone())).transpose()?;
        let seed = settings.seed.unwrap_or_else(rand::random);
        Ok(Self {
            account: settings.account,
            counters: Counters::default(),
            callbacks,
            stopping,
            injector: Mutex::new(FaultInjector::new(settings.faults, seed)),
            store: Mutex::new(MessageStore::new(settings.keep)),
        })
    }

    /// The faults. Hold the lock for a few instructions only, never over an await.
    pub(crate) fn injector(&self) -> MutexGuard<'_, FaultInjector> {
        self.injector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages. Hold the lock briefly, never over an await.
    pub(crate) fn store(&self) -> MutexGuard<'_, MessageStore> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of `/sandbox/stats`.
    pub(crate) fn stats_json(&self) -> Value {
        let mut faults = Map::new();
        for fault in Fault::VARIANTS {
            faults.insert(fault.name().to_owned(), get(&self.counters.faults[*fault as usize]).into());
        }
        faults.insert("error".to_owned(), get(&self.counters.errors).into());
        let (kept, doubled) = {
            let store = self.store();
            (store.kept(), store.doubled())
        };
        json!({
            "posts": get(&self.counters.posts),
            "accepted": get(&self.counters.accepted),
            "lists": get(&self.counters.lists),
            "faults": faults,
            "kept": kept,
            "doubled": doubled,
            "open_connections": self.counters.open_connections.load(Ordering::Relaxed),
            "callbacks": self.callbacks.as_ref().map(CallbackSender::stats_json),
        })
    }
}
