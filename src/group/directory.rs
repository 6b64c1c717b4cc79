//! All groups in memory: a snapshot, which is replaced when Postgres has a newer version.

use super::{
    ApiKey, Group, JwtSecret,
    key_uses::KeyUses,
    store::{
        self, StoreError, StoredGroup, addresses,
        keys::{self, SealedKey},
        last_uses::KeyKind,
        website_sessions,
    },
    template::{JoinUrl, Wording},
};
use crate::{
    credential::{WebsiteSession, gkey::GroupUser},
    db::{self, StatementError, kinds},
    group_id::GroupId,
    hmac_key::HmacKey,
    metrics::groups::{NAMED_AT_MOST, label},
    seal::{Purpose, SecretsKey},
    supervise::{Pulse, Task, keep_running},
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

/// How often the version is read when there are no other queries.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// The least time between two queries, however many callers wait for one.
const QUERY_EVERY: Duration = Duration::from_millis(100);

/// Groups, keys and addresses as they were at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    version: i64,
    groups: HashMap<GroupId, Arc<Group>>,
    addresses: HashMap<String, GroupUser>,
    /// How many active keys and secrets there are.
    sealed_keys: usize,
    /// How many of them opened.
    open_keys: usize,
    /// What is wrong with groups, each with what to do.
    problems: Vec<String>,
}

impl Snapshot {
    pub fn group(&self, id: GroupId) -> Option<&Arc<Group>> {
        self.groups.get(&id)
    }

    /// The groups whose texts wait for `groups resume`.
    pub(crate) fn paused(&self) -> impl Iterator<Item = &Group> {
        self.groups.values().map(AsRef::as_ref).filter(|group| group.paused_at.is_some())
    }

    /// The groups' own From numbers.
    pub(crate) fn own_from_numbers(&self) -> impl Iterator<Item = &str> {
        self.groups.values().filter_map(|group| group.options.sms_from.as_deref())
    }

    /// What is wrong with groups, for `/readyz`.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The user that an address (in lower case) names.
    pub fn address(&self, address: &str) -> Option<&GroupUser> {
        self.addresses.get(address)
    }
}

/// The groups could not be read, and the last snapshot is kept. Callers that waited for one query share its error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the groups could not be read: {0}")]
pub struct DirectoryError(#[source] pub Arc<StoreError>);

impl From<sqlx::Error> for DirectoryError {
    fn from(error: sqlx::Error) -> Self {
        Self(Arc::new(error.into()))
    }
}

impl StatementError for DirectoryError {
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

/// The last query. Its outcome answers every call that came before it began.
struct LastQuery {
    began: Instant,
    /// `None` if its caller was dropped before the answer.
    outcome: Option<Result<(), DirectoryError>>,
}

/// Keeps the snapshot of all groups up to date.
pub struct Directory {
    pool: PgPool,
    secrets: SecretsKey,
    public_url: String,
    current: ArcSwap<Snapshot>,
    key_uses: KeyUses,
    /// Locked during a query, so that there is one at a time.
    last: Mutex<Option<LastQuery>>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("version", &self.current.load().version).finish_non_exhaustive()
    }
}

impl Directory {
    /// Reads all groups once. A `SECRETS_KEY` that opens no key at all is an error here, so that no sender is refused because
    /// of it. Links of groups without a link template begin with `public_url`.
    pub async fn open(pool: PgPool, secrets: SecretsKey, public_url: String) -> Result<Self, DirectoryError> {
        let directory = Self {
            pool,
            secrets,
            public_url,
            current: ArcSwap::default(),
            key_uses: KeyUses::default(),
            last: Mutex::const_new(None),
        };
        let snapshot = directory.fresh().await?;
        if snapshot.open_keys == 0 && snapshot.sealed_keys > 0 {
            return Err(DirectoryError(Arc::new(StoreError::WrongSecretsKey(snapshot.sealed_keys))));
        }
        Ok(directory)
    }

    /// These groups, for benchmarks without a database: [`Self::fresh`] would fail.
    #[doc(hidden)]
    pub fn of(groups: Vec<Group>, pool: PgPool, secrets: SecretsKey) -> Self {
        let groups = groups.into_iter().map(|group| (group.id, Arc::new(group))).collect();
        let current = ArcSwap::from_pointee(Snapshot { groups, ..Snapshot::default() });
        let (key_uses, last) = (KeyUses::default(), Mutex::const_new(None));
        Self { pool, secrets, public_url: String::new(), current, key_uses, last }
    }

    /// The last snapshot, without a lock or a query. While the database answers, it is about a second old at most.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// A snapshot that was compared with the database after this call began. Call it before refusing something unknown, which
    /// may have been added a moment ago. Waiting callers share a query, and there are ten queries a second at most.
    ///
    /// # Errors
    ///
    /// The database cannot be read. [`Self::snapshot`] still has the old groups.
    pub async fn fresh(&self) -> Result<Arc<Snapshot>, DirectoryError> {
        let called = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(attempt) = &*last {
            if let Some(outcome) = attempt.outcome.clone().filter(|_| attempt.began > called) {
                return outcome.map(|()| self.snapshot());
            }
            sleep_until(attempt.began + QUERY_EVERY).await;
        }
        let began = Instant::now();
        *last = Some(LastQuery { began, outcome: None });
        // Boxed, to keep the futures of the invites small: few of them come here.
        let outcome = db::with_time_limit(Box::pin(self.refresh())).await;
        *last = Some(LastQuery { began, outcome: Some(outcome.clone()) });
        outcome.map(|()| self.snapshot())
    }

    /// The website session whose token has this SHA-256. It is always read from the database.
    pub async fn website_session(&self, sha256: &[u8; 32]) -> Result<Option<WebsiteSession>, sqlx::Error> {
        website_sessions::find(&self.pool, sha256).await
    }

    /// Polls for changes until `stop`.
    pub fn keep_following(self: &Arc<Self>, stop: CancellationToken) {
        let (directory, until) = (self.clone(), stop.clone());
        keep_running(Task::Groups, stop, move |pulse| {
            let (directory, until) = (directory.clone(), until.clone());
            async move {
                until.run_until_cancelled(directory.follow(&pulse)).await;
            }
        });
    }

    /// Polls for ever. While the database is away the old snapshot stays. The start and the end of that are logged.
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
                    tracing::warn!(%error, "the groups cannot be read: the last ones that were read stay in use");
                }
                Ok(_) | Err(_) => {}
            }
            if !away {
                self.key_uses.write(&self.pool).await;
            }
        }
    }

    async fn refresh(&self) -> Result<(), DirectoryError> {
        let version = store::version(&self.pool).await;
        kinds::LOOK_FOR_CHANGES.note(&version);
        if version? != self.current.load().version {
            let snapshot = self.load().await.map_err(|error| DirectoryError(Arc::new(error)));
            kinds::READ_GROUPS.note(&snapshot);
            let snapshot = snapshot?;
            tracing::info!(version = snapshot.version, groups = snapshot.groups.len(), "groups read");
            // Where there are few groups, each has series of its own before its first invite.
            if snapshot.groups.len() <= NAMED_AT_MOST {
                snapshot.groups.keys().for_each(|id| drop(label(id.get())));
            }
            self.current.store(Arc::new(snapshot));
            self.key_uses.forget_others();
        }
        Ok(())
    }

    async fn load(&self) -> Result<Snapshot, StoreError> {
        // One view of all tables, so that the version belongs to the data.
        let mut tx = db::begin_with(&self.pool, "begin isolation level repeatable read read only").await?;
        let version = store::version(&mut *tx).await?;
        let stored = store::list(&mut *tx).await?;
        let mut api_keys = by_group(keys::active_api_keys(&mut *tx, None).await?);
        let mut jwt_secrets = by_group(keys::active_jwt_secrets(&mut *tx, None).await?);
        let addresses = addresses::list(&mut *tx, None).await?;
        tx.commit().await?;
        let sealed_keys = [&api_keys, &jwt_secrets].into_iter().flat_map(HashMap::values).map(Vec::len).sum();

        let (mut open_keys, mut unusable) = (0, Vec::new());
        let groups: HashMap<_, _> = stored
            .into_iter()
            .filter_map(|group| {
                let keys = api_keys.remove(&group.id.get()).unwrap_or_default();
                let secrets = jwt_secrets.remove(&group.id.get()).unwrap_or_default();
                let keys = self.keys(group.id, &keys, secrets);
                // Before the templates are checked: SECRETS_KEY is right if it opens the keys of a broken group.
                open_keys += keys.api_keys.len() + keys.jwt_secrets.len();
                match self.group(group, keys) {
                    Ok(group) => Some((group.id, Arc::new(group))),
                    Err(why) => {
                        unusable.push(why);
                        None
                    }
                }
            })
            .collect();
        let addresses = addresses
            .into_iter()
            .filter_map(|row| {
                let group = GroupId::new(row.group_id)?;
                Some((row.address, GroupUser { group, user: row.partner_user_id }))
            })
            .collect();
        let problems = problems_of(&groups, &unusable);
        Ok(Snapshot { version, groups, addresses, sealed_keys, open_keys, problems })
    }

    /// Opens a group's keys. One that does not open is left out.
    fn keys(&self, id: GroupId, keys: &[SealedKey], secrets: Vec<SealedKey>) -> OpenKeys {
        let open = |purpose, key: &SealedKey| {
            self.secrets
                .open(id, purpose, &key.sealed)
                .inspect_err(|error| tracing::error!(group = id.get(), key = key.id, "{error}"))
                .ok()
                .map(|secret| HmacKey::from_secret(secret.expose_secret().as_bytes()))
        };
        let active = keys.len() + secrets.len();
        let api_keys: Vec<_> = keys
            .iter()
            .filter_map(|key| {
                let last_use = self.key_uses.of(KeyKind::ApiKey, key.id);
                Some(ApiKey { key: open(Purpose::ApiKey, key)?, last_use })
            })
            .collect();
        let jwt_secrets: Vec<_> = secrets
            .into_iter()
            .filter_map(|key| {
                let opened = open(Purpose::JwtSecret, &key)?;
                let last_use = self.key_uses.of(KeyKind::JwtSecret, key.id);
                Some(JwtSecret { kid: key.kid, key: opened, last_use })
            })
            .collect();
        let missing = api_keys.len() + jwt_secrets.len() < active;
        OpenKeys { api_keys, jwt_secrets, missing }
    }

    /// Parses a group's templates. A group whose templates are wrong is left out, which affects no other group.
    /// Such a group is an error that names it.
    fn group(&self, stored: StoredGroup, keys: OpenKeys) -> Result<Group, String> {
        let StoredGroup { id, enabled, paused_at, options, .. } = stored;
        let wording = Wording::parse(&options.template, options.link.as_deref(), &self.public_url);
        let wording = wording.map_err(|error| {
            tracing::error!(group = id.get(), %error, "a group's templates are unusable: its invites fail");
            format!(
                "the templates of {} are unusable, so that its invites fail: {error}. What to do: session-invite groups show \
                 {id} shows them; correct them with session-invite groups set {id} --template or --link",
                named(id, options.name.as_deref())
            )
        })?;
        let join = options.join_url.as_deref().and_then(|url| {
            JoinUrl::parse(url)
                .inspect_err(|error| tracing::error!(group = id.get(), %error, "a group's join URL is unusable: its visitors' pages have no link"))
                .ok()
        });
        Ok(Group {
            id,
            enabled,
            paused_at,
            options,
            wording,
            join,
            keys_missing: keys.missing,
            api_keys: keys.api_keys,
            jwt_secrets: keys.jwt_secrets,
        })
    }
}

/// Problems that are reported of all groups at most.
const LISTED: usize = 10;

/// Groups that are switched on, and whose invites all fail or are refused.
fn problems_of(groups: &HashMap<GroupId, Arc<Group>>, unusable: &[String]) -> Vec<String> {
    let mut enabled: Vec<_> = groups.values().filter(|group| group.enabled).collect();
    enabled.sort_by_key(|group| group.id.get());
    let keys = enabled.iter().filter_map(|group| {
        let (id, name) = (group.id, named(group.id, group.options.name.as_deref()));
        if group.keys_missing {
            Some(format!(
                "not all keys of {name} can be opened, so that some of its senders fail. What to do: add the SECRETS_KEY that \
                 sealed them to SECRETS_KEY, after a comma; session-invite doctor checks it"
            ))
        } else if group.api_keys.is_empty() && group.jwt_secrets.is_empty() {
            Some(format!(
                "{name} has no active key, so that only website sessions are accepted. What to do: session-invite groups \
                 rotate-key {id} makes one"
            ))
        } else {
            None
        }
    });
    unusable.iter().cloned().chain(keys).take(LISTED).collect()
}

fn named(id: GroupId, name: Option<&str>) -> String {
    name.map_or_else(|| format!("group {id}"), |name| format!("group {id} ({name})"))
}

/// The keys of a group that opened.
struct OpenKeys {
    api_keys: Vec<ApiKey>,
    jwt_secrets: Vec<JwtSecret>,
    /// Whether other active keys did not open.
    missing: bool,
}

fn by_group(keys: Vec<SealedKey>) -> HashMap<i64, Vec<SealedKey>> {
    let mut groups: HashMap<i64, Vec<SealedKey>> = HashMap::new();
    for key in keys {
        groups.entry(key.group_id).or_default().push(key);
    }
    groups
}
