//! Where the database is, and connections to it: those of the pool, and single ones whose errors say why there is none.

use super::{
    client::Client,
    error::{Passing, Unusable},
    leave,
    sqlstate::{self, Action},
};
use crate::config::TargetNode;
use rand::seq::SliceRandom;
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use std::{
    borrow::Cow,
    fmt::Write as _,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// The oldest server that the migrations and queries are written for.
const OLDEST: i32 = 130_000;
/// A connection that answers no ping for so long is closed. A pool has no use for one that is slower.
const PING_WITHIN: Duration = Duration::from_secs(1);
/// A connection that comes back may still be at the statement whose caller has gone away.
const SETTLES_WITHIN: Duration = Duration::from_secs(6);
/// How long a statement waits for a connection.
pub(super) const ACQUIRED_WITHIN: Duration = Duration::from_secs(5);

/// Of the one database of this process, for errors that hide their own cause.
static REACH: OnceLock<Reach> = OnceLock::new();

/// The database's nodes, and what each connection to one is set to.
#[derive(Clone)]
pub(super) struct Reach {
    pub nodes: Vec<PgConnectOptions>,
    pub target: TargetNode,
    /// For one node.
    pub connect_timeout: Duration,
    pub client: Client,
    /// Of each connection, in their order.
    pub settings: Arc<[(String, String)]>,
    /// The variable that those of the operator are from.
    pub settings_from: &'static str,
}

/// Without the password.
impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reach").field("nodes", &self.names()).finish_non_exhaustive()
    }
}

/// A connection outside the pool, and what it leads to.
#[derive(Debug)]
pub(super) struct Reached {
    pub connection: PgConnection,
    /// Of [`Reach::nodes`], as it is reached: perhaps without TLS.
    pub node: PgConnectOptions,
}

#[derive(sqlx::FromRow)]
struct Server {
    number: i32,
    version: String,
    encoding: String,
    takes_writes: bool,
}

impl Reach {
    /// The first node that will do; or of each why not.
    pub async fn connect(&self) -> Result<Reached, Unusable> {
        let mut refused = Vec::new();
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        nodes.shuffle(&mut rand::rng());
        for node in nodes {
            match timeout(self.connect_timeout, Box::pin(self.open(node))).await {
                Ok(Ok(reached)) => return Ok(reached),
                Ok(Err(error)) => refused.push((node, error)),
                Err(_) => {
                    let silence = format!("no answer within {} s", self.connect_timeout.as_secs());
                    refused.push((node, Unusable::Away(silence)));
                }
            }
        }
        // One that may come to be good is waited for; else what is wrong with the first is told.
        let all_end = refused.iter().all(|(_, error)| !error.passes());
        if all_end && let Some((_, error)) = refused.drain(..).next() {
            return Err(error);
        }
        let mut text = String::from(if refused.len() > 1 { "no node takes writes: " } else { "" });
        for (n, (node, error)) in refused.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            // Writing to a string does not fail.
            let _ = match error {
                Unusable::Away(why) => write!(text, "{separator}{}: {why}", name(node)),
                other => write!(text, "{separator}{}: {other}", name(node)),
            };
        }
        Err(Unusable::Away(text))
    }

    async fn open(&self, node: &PgConnectOptions) -> Result<Reached, Unusable> {
        let (mut connection, node) = connect(node).await.map_err(|error| refused(&error))?;
        let server: Server = sqlx::query_as(
            "select current_setting('server_version_num')::int as number, current_setting('server_version') as version,
                    current_setting('server_encoding') as encoding,
                    not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off' as takes_writes",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(|error| refused(&error))?;
        if server.number < OLDEST {
            return Err(Unusable::TooOld(server.version));
        }
        if server.encoding != "UTF8" {
            return Err(Unusable::Encoding(server.encoding));
        }
        if self.target == TargetNode::Writes && !server.takes_writes {
            let _ = connection.close().await;
            return Err(Unusable::Away(
                "it is read-only (a standby, or default_transaction_read_only is on)".to_owned(),
            ));
        }
        set(&mut connection, &self.settings).await.map_err(|error| {
            refused_setting(&error, self.settings_from).unwrap_or_else(|| refused(&error))
        })?;
        Ok(Reached { connection, node })
    }

    /// A pool of connections to the node, none of which is open yet.
    pub fn pool(&self, node: PgConnectOptions, connections: u32) -> PgPool {
        let settings = self.settings.clone();
        let trusted_for = self.client.trusts_for();
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRED_WITHIN)
            // Readiness names what keeps it waiting.
            .acquire_slow_level(tracing::log::LevelFilter::Off)
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let settings = settings.clone();
                Box::pin(async move {
                    // One that cannot be set is one that is lost, as its next statement will say.
                    let _ = set(connection, &settings).await;
                    Ok(())
                })
            })
            .before_acquire(move |connection, meta| {
                Box::pin(async move {
                    let trusted = trusted_for.is_some_and(|time| meta.idle_for < time);
                    Ok(!leave::is_left(meta.age)
                        && (trusted || answers_within(connection, PING_WITHIN).await))
                })
            })
            .after_release(|connection, meta| {
                // The pool's own ping has no time limit, and a silent connection would keep its place for ever.
                Box::pin(async move {
                    Ok(!leave::is_left(meta.age) && answers_within(connection, SETTLES_WITHIN).await)
                })
            })
            .connect_lazy_with(node)
    }

    /// Keeps it for [`why_no_connection`].
    pub fn remember(&self) {
        let _ = REACH.set(self.clone());
    }

    fn names(&self) -> Vec<String> {
        self.nodes.iter().map(name).collect()
    }
}

/// Whether a connection that was not used for a while still answers.
pub async fn pings(connection: &mut PgConnection) -> bool {
    answers_within(connection, Duration::from_secs(1)).await
}

async fn answers_within(connection: &mut PgConnection, within: Duration) -> bool {
    matches!(timeout(within, connection.ping()).await, Ok(Ok(())))
}

/// Why the pool has no connection, by trying to open one more: the pool itself only says that its time was over.
/// Those who ask at the same time share an answer.
pub async fn why_no_connection() -> String {
    static LAST: Mutex<Option<(u64, String)>> = Mutex::new(None);
    static ASKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    const NEW_FOR: u64 = 1_000_000;
    let busy = || {
        format!(
            "all connections are busy, and none became free in {} s: raise DATABASE_MAX_CONNECTIONS, or see what holds \
             them in pg_stat_activity",
            ACQUIRED_WITHIN.as_secs()
        )
    };
    let Some(reach) = REACH.get() else { return busy() };
    let last = || LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let _asking = ASKING.lock().await;
    if let Some((at, why)) = last().clone()
        && leave::now().saturating_sub(at) < NEW_FOR
    {
        return why;
    }
    let why = match Box::pin(reach.connect()).await {
        Ok(reached) => {
            let _ = reached.connection.close().await;
            busy()
        }
        Err(error) => error.to_string(),
    };
    *last() = Some((leave::now(), why.clone()));
    why
}

/// Connects, without TLS where nobody is there to be hidden from: TLS is preferred and no more, and the server is on this
/// machine. An invite costs less without it.
async fn connect(node: &PgConnectOptions) -> Result<(PgConnection, PgConnectOptions), sqlx::Error> {
    let on_this_machine = matches!(node.get_host(), "localhost" | "127.0.0.1" | "::1" | "[::1]");
    if on_this_machine && matches!(node.get_ssl_mode(), PgSslMode::Prefer) {
        let plain = node.clone().ssl_mode(PgSslMode::Disable);
        match plain.connect().await {
            Err(error) if code(&error).as_deref() == Some("28000") => {}
            connected => return connected.map(|connection| (connection, plain)),
        }
    }
    Ok((node.connect().await?, node.clone()))
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(Cow::into_owned)
}

/// What an error on the way to a connection means.
fn refused(error: &sqlx::Error) -> Unusable {
    let code = code(error).unwrap_or_default();
    let is_pooler = error
        .as_database_error()
        .is_some_and(|error| code == "08P01" && error.message().contains("unsupported startup parameter"));
    match code.as_str() {
        "08P01" if is_pooler => Unusable::Pooler(error.summary()),
        // No right to connect.
        "42501" => Unusable::Login(error.summary()),
        code if !code.is_empty() && sqlstate::action(code) == Action::End => Unusable::Login(error.summary()),
        "53300" => Unusable::Away(format!(
            "{}: allow more (alter role ... connection limit, max_connections), or lower DATABASE_MAX_CONNECTIONS",
            error.summary()
        )),
        _ if is_refused(error) => Unusable::Away(format!("{}: is it running there?", error.summary())),
        _ => Unusable::Away(error.summary()),
    }
}

/// A setting that the server does not take, without its words, which repeat the value.
fn refused_setting(error: &sqlx::Error, variable: &'static str) -> Option<Unusable> {
    let code = code(error).filter(|code| sqlstate::refuses_a_setting(code))?;
    Some(Unusable::Setting(variable, code))
}

fn is_refused(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Where a node is, for people.
pub(super) fn name(node: &PgConnectOptions) -> String {
    match node.get_socket() {
        Some(socket) => socket.display().to_string(),
        None if node.get_host().starts_with('/') => node.get_host().to_owned(),
        None if node.get_host().contains(':') => format!("[{}]:{}", node.get_host(), node.get_port()),
        None => format!("{}:{}", node.get_host(), node.get_port()),
    }
}

/// Sets a new connection. Not by startup parameters: a pooler refuses those.
async fn set(connection: &mut PgConnection, settings: &[(String, String)]) -> Result<(), sqlx::Error> {
    let (names, values): (Vec<_>, Vec<_>) =
        settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).unzip();
    sqlx::query(
        "select set_config(s.name, s.value, false) from unnest($1::text[], $2::text[]) as s (name, value)",
    )
    .bind(names)
    .bind(values)
    .persistent(false)
    .execute(connection)
    .await
    .map(drop)
}
