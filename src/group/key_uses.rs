//! When each key of a group was last used, in memory, until it is written to the table `key_uses`.

use super::store::last_uses::{self, KeyKind, KeyUse};
use crate::db::{self, StatementError, kinds};
use sqlx::PgPool;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The least time between two statements.
const WRITE_EVERY: Duration = Duration::from_mins(1);
/// Keys in one statement. The others come with the next one.
const AT_ONCE: usize = 1_000;

/// When a key was last used, in Unix seconds; 0 for never. All snapshots of the groups share it.
#[derive(Debug, Clone, Default)]
pub struct LastUse(Arc<AtomicI64>);

impl LastUse {
    /// Notes a use. It only writes once a second, so that threads do not wait for each other.
    pub(crate) fn note(&self, now: i64) {
        if self.0.load(Ordering::Relaxed) != now {
            self.0.store(now, Ordering::Relaxed);
        }
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The uses of all active keys.
#[derive(Debug, Default)]
pub(super) struct KeyUses {
    keys: Mutex<HashMap<(KeyKind, i64), KnownKey>>,
    /// When the last statement was sent.
    written: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct KnownKey {
    last_use: LastUse,
    /// The last use that is in the table.
    written: i64,
}

impl KeyUses {
    /// The uses of a key, which a new snapshot shares with the one before.
    pub(super) fn of(&self, kind: KeyKind, id: i64) -> LastUse {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.entry((kind, id)).or_default().last_use.clone()
    }

    /// Forgets keys that no snapshot has any more.
    pub(super) fn forget_others(&self) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|_, key| Arc::strong_count(&key.last_use.0) > 1);
    }

    /// Writes the uses that are not in the table, unless that was done within the last minute.
    pub(super) async fn write(&self, pool: &PgPool) {
        let last = *self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < WRITE_EVERY) {
            return;
        }
        let due = self.due();
        if due.is_empty() {
            return;
        }
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let result = db::with_time_limit(Box::pin(last_uses::write(pool, &due))).await;
        kinds::NOTE_KEY_USES.note(&result);
        match result {
            Ok(()) => self.note_written(&due),
            Err(error) => tracing::debug!(error = %error.summary(), "the uses of keys are written later"),
        }
    }

    fn due(&self) -> Vec<KeyUse> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let unwritten = keys.iter().filter(|(_, key)| key.last_use.get() > key.written);
        let mut due: Vec<_> = unwritten
            .map(|(&(kind, id), key)| (key.written, KeyUse { kind, id, at: key.last_use.get() }))
            .collect();
        due.sort_unstable_by_key(|(written, key)| (*written, key.kind, key.id));
        due.truncate(AT_ONCE);
        due.into_iter().map(|(_, key)| key).collect()
    }

    fn note_written(&self, uses: &[KeyUse]) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for key in uses {
            if let Some(known) = keys.get_mut(&(key.kind, key.id)) {
                known.written = key.at;
            }
        }
    }
}
