//! The worker's view of all groups: a snapshot in memory, replaced when Postgres holds something newer.

use super::{
    Group, JwtSecret,
    store::{
        self, StoreError, Stored, addresses,
        keys::{self, Sealed},
        website_sessions,
    },
    template::{JoinUrl, Wording},
};
use crate::{
    credential::{WebsiteSession, gkey::Account},
    db::{self, Passing, kinds},
    group_id::GroupId,
    hmac_key::HmacKey,
    seal::{Purpose, SecretsKey},
    supervise::{Pulse, Task, keep_up},
};
use arc_swap::ArcSwap;
use secrecy::ExposeSecret;
use sqlx::PgPool;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::Mutex,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// How often the version is looked at when nobody asks.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// The least time from one query to the next, however many ask.
const QUERY_EVERY: Duration = Duration::from_millis(100);

/// Groups, keys and addresses as they were at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    version: i64,
    groups: HashMap<GroupId, Arc<Group>>,
    addresses: HashMap<String, Account>,
    /// Active keys and secrets, and how many of them opened.
    sealed: usize,
    opened: usize,
}

impl Snapshot {
    pub fn group(&self, id: GroupId) -> Option<&Arc<Group>> {
        self.groups.get(&id)
    }

    /// The account that an address (in lower case) stands for.
    pub fn address(&self, address: &str) -> Option<&Account> {
        self.addresses.get(address)
    }
}

/// The groups could not be read; the last snapshot stands. Those who waited for one query share its error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the groups could not be read: {0}")]
pub struct Stale(#[source] pub Arc<StoreError>);

impl From<sqlx::Error> for Stale {
    fn from(error: sqlx::Error) -> Self {
        Self(Arc::new(error.into()))
    }
}

impl Passing for Stale {
    fn database_error(&self) -> Option<&sqlx::Error> {
        match &*self.0 {
            StoreError::Database(error) => Some(error),
            _ => None,
        }
    }

    fn summary(&self) -> String {
        match &*self.0 {
            StoreError::Database(error) => error.summary(),
            other => other.to_string(),
        }
    }
}

/// The last query: what began after a question was asked answers it.
struct Attempt {
    began: Instant,
    /// `None` if its caller went away in the middle.
    outcome: Option<Result<(), Stale>>,
}

/// Keeps the snapshot.
pub struct Directory {
    pool: PgPool,
    secrets: SecretsKey,
    public_url: String,
    current: ArcSwap<Snapshot>,
    /// Held through a query, so that there is one at a time.
    last: Mutex<Option<Attempt>>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("version", &self.current.load().version).finish_non_exhaustive()
    }
}

impl Directory {
    /// Reads everything once; a `SECRETS_KEY` that opens nothing is an error, before any sender is refused for it.
    /// `public_url` is what links begin with where a group has no template for them.
    pub async fn open(pool: PgPool, secrets: SecretsKey, public_url: String) -> Result<Self, Stale> {
        let directory =
            Self { pool, secrets, public_url, current: ArcSwap::default(), last: Mutex::const_new(None) };
        let snapshot = directory.fresh().await?;
        if snapshot.opened == 0 && snapshot.sealed > 0 {
            return Err(Stale(Arc::new(StoreError::WrongSecretsKey(snapshot.sealed))));
        }
        Ok(directory)
    }

    /// Groups in memory, for measuring without a database: a question to [`Self::fresh`] would fail.
    #[doc(hidden)]
    pub fn of(groups: Vec<Group>, pool: PgPool, secrets: SecretsKey) -> Self {
        let groups = groups.into_iter().map(|group| (group.id, Arc::new(group))).collect();
        let current = ArcSwap::from_pointee(Snapshot { groups, ..Snapshot::default() });
        Self { pool, secrets, public_url: String::new(), current, last: Mutex::const_new(None) }
    }

    /// What was last read: free of locks and queries, and about a second old at most while the database answers.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// A snapshot that was compared with the database after this call began: to be asked before something unknown is
    /// refused, as it may have been added a moment ago. All who wait share a query, and there are at most ten a second.
    ///
    /// # Errors
    ///
    /// The database cannot be read, and [`Self::snapshot`] may be old.
    pub async fn fresh(&self) -> Result<Arc<Snapshot>, Stale> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(attempt) = &*last {
            if let Some(outcome) = attempt.outcome.clone().filter(|_| attempt.began > asked) {
                return outcome.map(|()| self.snapshot());
            }
            sleep_until(attempt.began + QUERY_EVERY).await;
        }
        let began = Instant::now();
        *last = Some(Attempt { began, outcome: None });
        // Boxed: every invite's future has room for it, and few come here.
        let outcome = db::answered(Box::pin(self.refresh())).await;
        *last = Some(Attempt { began, outcome: Some(outcome.clone()) });
        outcome.map(|()| self.snapshot())
    }

    /// The website session with this SHA-256 of its token, read from the database each time.
    pub async fn website_session(&self, sha256: &[u8; 32]) -> Result<Option<WebsiteSession>, sqlx::Error> {
        website_sessions::find(&self.pool, sha256).await
    }

    /// Follows the changes until `stop`.
    pub fn keep_following(self: &Arc<Self>, stop: CancellationToken) {
        let (directory, until) = (self.clone(), stop.clone());
        keep_up(Task::Groups, stop, move |pulse| {
            let (directory, until) = (directory.clone(), until.clone());
            async move {
                until.run_until_cancelled(directory.follow(&pulse)).await;
            }
        });
    }

    /// Polls for ever. While the database is away the old snapshot stays; that is logged once, and so is its return.
    async fn follow(&self, pulse: &Pulse) {
        let mut ticks = interval(POLL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut away = false;
        loop {
            pulse.idle();
            ticks.tick().await;
            pulse.step("looking for changed groups");
            match self.fresh().await {
                Ok(_) if away => {
                    away = false;
                    tracing::info!("the groups can be read again");
                }
                Err(error) if !away => {
                    away = true;
                    tracing::warn!(%error, "the groups cannot be read: going on with those read before");
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    async fn refresh(&self) -> Result<(), Stale> {
        let version = store::version(&self.pool).await;
        kinds::LOOK_FOR_CHANGES.note(&version);
        if version? != self.current.load().version {
            let snapshot = self.load().await.map_err(|error| Stale(Arc::new(error)));
            kinds::READ_GROUPS.note(&snapshot);
            let snapshot = snapshot?;
            tracing::info!(version = snapshot.version, groups = snapshot.groups.len(), "groups read");
            self.current.store(Arc::new(snapshot));
        }
        Ok(())
    }

    async fn load(&self) -> Result<Snapshot, StoreError> {
        // One view for all the tables, so that the version is that of the data.
        let mut tx = db::begin_with(&self.pool, "begin isolation level repeatable read read only").await?;
        let version = store::version(&mut *tx).await?;
        let stored = store::list(&mut *tx).await?;
        let mut api_keys = by_group(keys::active_api_keys(&mut *tx, None).await?);
        let mut jwt_secrets = by_group(keys::active_jwt_secrets(&mut *tx, None).await?);
        let addresses = addresses::list(&mut *tx, None).await?;
        tx.commit().await?;
        let sealed = [&api_keys, &jwt_secrets].into_iter().flat_map(HashMap::values).map(Vec::len).sum();

        let mut opened = 0;
        let groups: HashMap<_, _> = stored
            .into_iter()
            .filter_map(|group| {
                let keys = api_keys.remove(&group.id.get()).unwrap_or_default();
                let secrets = jwt_secrets.remove(&group.id.get()).unwrap_or_default();
                let keys = self.keys(group.id, &keys, secrets);
                // Whatever becomes of the group: SECRETS_KEY is right if it opens its keys.
                opened += keys.api_keys.len() + keys.jwt_secrets.len();
                self.group(group, keys).map(|group| (group.id, Arc::new(group)))
            })
            .collect();
        let addresses = addresses
            .into_iter()
            .filter_map(|row| {
                let group = GroupId::new(row.group_id)?;
                Some((row.address, Account { group, user: row.partner_user_id }))
            })
            .collect();
        Ok(Snapshot { version, groups, addresses, sealed, opened })
    }

    /// A key that does not open is left out.
    fn keys(&self, id: GroupId, keys: &[Sealed], secrets: Vec<Sealed>) -> Opened {
        let open = |purpose, key: &Sealed| {
            self.secrets
                .open(id, purpose, &key.sealed)
                .inspect_err(|error| tracing::error!(group = %id, key = key.id, "{error}"))
                .ok()
                .map(|secret| HmacKey::from_secret(secret.expose_secret().as_bytes()))
        };
        let active = keys.len() + secrets.len();
        let api_keys: Vec<_> = keys.iter().filter_map(|key| open(Purpose::ApiKey, key)).collect();
        let jwt_secrets: Vec<_> = secrets
            .into_iter()
            .filter_map(|key| {
                let opened = open(Purpose::JwtSecret, &key)?;
                Some(JwtSecret { kid: key.kid, key: opened })
            })
            .collect();
        let missing = api_keys.len() + jwt_secrets.len() < active;
        Opened { api_keys, jwt_secrets, missing }
    }

    /// A group whose templates do not parse is left out: no other group suffers.
    fn group(&self, stored: Stored, keys: Opened) -> Option<Group> {
        let Stored { id, enabled, options, .. } = stored;
        let wording = Wording::parse(&options.template, options.link.as_deref(), &self.public_url)
            .inspect_err(|error| tracing::error!(group = %id, %error, "a group's templates are unusable: its invites fail"))
            .ok()?;
        let join = options.join_url.as_deref().and_then(|url| {
            JoinUrl::parse(url)
                .inspect_err(|error| tracing::error!(group = %id, %error, "visitors are shown no way on"))
                .ok()
        });
        Some(Group {
            id,
            enabled,
            options,
            wording,
            join,
            keys_missing: keys.missing,
            api_keys: keys.api_keys,
            jwt_secrets: keys.jwt_secrets,
        })
    }
}

/// A group's keys that opened.
struct Opened {
    api_keys: Vec<HmacKey>,
    jwt_secrets: Vec<JwtSecret>,
    /// Whether there are active ones that did not.
    missing: bool,
}

fn by_group(keys: Vec<Sealed>) -> HashMap<i64, Vec<Sealed>> {
    let mut groups: HashMap<i64, Vec<Sealed>> = HashMap::new();
    for key in keys {
        groups.entry(key.group_id).or_default().push(key);
    }
    groups
}
