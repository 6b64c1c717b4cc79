//! The database's nodes, and connections to them: those of the pool, and single ones whose errors show the cause.

use super::{
    client::DatabaseClient,
    cluster::{self, KnownCluster, NodeFacts},
    error::{StatementError, UnusableDatabase},
    retire,
    sqlstate::{self, ErrorAction},
};
use crate::{config::TargetNode, nodes::NodeState};
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use std::{
    borrow::Cow,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// The oldest server that the migrations and queries are written for.
const OLDEST: i32 = 130_000;
/// A connection that does not answer a ping within this time is closed.
const PING_WITHIN: Duration = Duration::from_secs(1);
/// The same for a connection that returns to the pool: it may still run a statement whose caller has gone away.
const SETTLES_WITHIN: Duration = Duration::from_secs(6);
/// How long a statement waits for a connection from the pool.
pub(super) const ACQUIRED_WITHIN: Duration = Duration::from_secs(5);

/// The process's one database, for [`why_no_connection`].
static NODES: OnceLock<DatabaseNodes> = OnceLock::new();

/// The database's nodes, and how each connection to one is set.
#[derive(Clone)]
pub(super) struct DatabaseNodes {
    pub nodes: Vec<PgConnectOptions>,
    pub target: TargetNode,
    /// For one node.
    pub connect_timeout: Duration,
    pub client: DatabaseClient,
    /// Of each connection, in this order: a later value wins.
    pub settings: Arc<[(String, String)]>,
    /// The variable that the operator's settings are from.
    pub settings_from: &'static str,
    pub cluster: Arc<KnownCluster>,
}

/// Without the password.
impl std::fmt::Debug for DatabaseNodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseNodes").field("nodes", &self.names()).finish_non_exhaustive()
    }
}

/// A connection outside the pool, and the node that it leads to.
#[derive(Debug)]
pub(super) struct NodeConnection {
    pub connection: PgConnection,
    /// One of [`DatabaseNodes::nodes`], perhaps without TLS.
    pub node: PgConnectOptions,
}

#[derive(sqlx::FromRow)]
struct ServerFacts {
    number: i32,
    version: String,
    encoding: String,
}

impl DatabaseNodes {
    /// Connects to the first node that can be used, in random order, and tries one that has just failed last. The error
    /// lists the cause for each node.
    pub(super) async fn connect(&self) -> Result<NodeConnection, UnusableDatabase> {
        let mut refused = Vec::new();
        for node in self.cluster.order.arrange(self.nodes.iter().collect(), |node| name(node)) {
            match self.in_time(self.open(node)).await {
                Ok(opened) => {
                    self.cluster.order.works(&name(node));
                    return Ok(opened);
                }
                Err(error) => {
                    self.cluster.order.failed(&name(node));
                    refused.push((name(node), error));
                }
            }
        }
        if refused.len() < 2 {
            return Err(match refused.pop() {
                Some((node, UnusableDatabase::Away(why))) => UnusableDatabase::Away(format!("{node}: {why}")),
                Some((_, error)) => error,
                None => UnusableDatabase::Away("DATABASE_URL names no node".to_owned()),
            });
        }
        // In the order of the URL, so that the same causes are the same text.
        let place = |node: &String| self.names().iter().position(|name| name == node);
        refused.sort_by_key(|(node, _)| place(node));
        let reasons: Vec<_> =
            refused.iter().map(|(node, error)| format!("{node}: {}", error.reason())).collect();
        let reasons = reasons.join("; ");
        // If no fault passes by itself, this ends the wait. Else one of the nodes may become usable.
        Err(if refused.iter().all(|(_, error)| !error.is_transient()) {
            UnusableDatabase::NoNode(reasons)
        } else {
            UnusableDatabase::Away(format!("no node takes writes: {reasons}"))
        })
    }

    /// Whether there is more than one node.
    pub(super) fn are_several(&self) -> bool {
        self.nodes.len() > 1
    }

    async fn in_time<T>(
        &self,
        opening: impl Future<Output = Result<T, UnusableDatabase>>,
    ) -> Result<T, UnusableDatabase> {
        timeout(self.connect_timeout, Box::pin(opening)).await.unwrap_or_else(|_| {
            let seconds = self.connect_timeout.as_secs();
            Err(UnusableDatabase::Away(format!("no answer within {seconds} s")))
        })
    }

    async fn open(&self, node: &PgConnectOptions) -> Result<NodeConnection, UnusableDatabase> {
        let (mut connection, node) = connect(node).await.map_err(|error| refused(&error))?;
        let server: ServerFacts = sqlx::query_as(
            "select current_setting('server_version_num')::int as number, current_setting('server_version') as version,
                    current_setting('server_encoding') as encoding",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(|error| refused(&error))?;
        if server.number < OLDEST {
            return Err(UnusableDatabase::TooOld(server.version));
        }
        if server.encoding != "UTF8" {
            return Err(UnusableDatabase::Encoding(server.encoding));
        }
        let facts = NodeFacts::read(&mut connection).await.map_err(|error| refused(&error))?;
        if let Some(why) = self.why_not(facts.state) {
            let _ = connection.close().await;
            return Err(UnusableDatabase::Away(why.to_owned()));
        }
        if self.are_several() {
            self.cluster.learn(&name(&node), &facts);
            if let Some(why) = self.cluster.objection(&facts) {
                let _ = connection.close().await;
                return Err(UnusableDatabase::Away(why));
            }
            self.cluster.uses(&facts);
        }
        set(&mut connection, &self.settings).await.map_err(|error| {
            refused_setting(&error, self.settings_from).unwrap_or_else(|| refused(&error))
        })?;
        Ok(NodeConnection { connection, node })
    }

    /// Why a node in this state is not used. No worker or gateway reads from a standby, whose rows may be old.
    fn why_not(&self, state: NodeState) -> Option<&'static str> {
        let is_wanted = match state {
            NodeState::Standby => self.target == TargetNode::Any && self.client == DatabaseClient::Command,
            _ => self.target == TargetNode::Any,
        };
        NodeFacts::why_no_writes(state).filter(|_| !is_wanted)
    }

    /// What the node says of itself, on a connection for this alone, and how the node was reached.
    pub(super) async fn facts(
        &self,
        node: &PgConnectOptions,
    ) -> Result<(NodeFacts, PgConnectOptions), UnusableDatabase> {
        self.in_time(async {
            let (mut connection, node) = connect(node).await.map_err(|error| refused(&error))?;
            let facts = NodeFacts::read(&mut connection).await.map_err(|error| refused(&error))?;
            let _ = connection.close().await;
            Ok((facts, node))
        })
        .await
    }

    /// A pool of connections to the node, none of which is open yet.
    pub(super) fn pool(&self, node: PgConnectOptions, connections: u32) -> PgPool {
        let (settings, nodes) = (self.settings.clone(), self.clone());
        let trusted_for = self.client.trusts_idle_for();
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRED_WITHIN)
            // The readiness report names the cause of a wait.
            .acquire_slow_level(tracing::log::LevelFilter::Off)
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let (settings, nodes) = (settings.clone(), nodes.clone());
                Box::pin(async move {
                    // If this fails, the connection is lost, and its next statement returns the error.
                    let _ = set(connection, &settings).await;
                    nodes.refuse_standby(connection).await
                })
            })
            .before_acquire(move |connection, meta| {
                Box::pin(async move {
                    let trusted = trusted_for.is_some_and(|time| meta.idle_for < time);
                    Ok(!retire::is_retired(meta.age)
                        && (trusted || answers_within(connection, PING_WITHIN).await))
                })
            })
            .after_release(|connection, meta| {
                // The pool's own ping has no time limit: a silent connection would count as open for ever.
                Box::pin(async move {
                    Ok(!retire::is_retired(meta.age) && answers_within(connection, SETTLES_WITHIN).await)
                })
            })
            .connect_lazy_with(node)
    }

    /// An error for a new connection of the pool that leads to a node which is not used. The watch reports the cause.
    async fn refuse_standby(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        match self.why_not(cluster::state(connection).await?) {
            Some(why) => Err(sqlx::Error::Io(std::io::Error::other(why))),
            None => Ok(()),
        }
    }

    /// Keeps these nodes for [`why_no_connection`].
    pub(super) fn remember(&self) {
        let _ = NODES.set(self.clone());
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.nodes.iter().map(name).collect()
    }
}

/// Whether an idle connection still answers.
pub(crate) async fn pings(connection: &mut PgConnection) -> bool {
    answers_within(connection, Duration::from_secs(1)).await
}

async fn answers_within(connection: &mut PgConnection, within: Duration) -> bool {
    matches!(timeout(within, connection.ping()).await, Ok(Ok(())))
}

/// Why the pool has no connection. The pool only reports a time-out, so this opens one more connection and returns its
/// error. Callers within the same second share an answer.
pub(crate) async fn why_no_connection() -> String {
    static LAST: Mutex<Option<(u64, String)>> = Mutex::new(None);
    static CHECKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    const SHARED_FOR_MICROS: u64 = 1_000_000;
    let busy = || {
        format!(
            "all connections are busy, and none became free in {} s: raise DATABASE_MAX_CONNECTIONS, or look in \
             pg_stat_activity for what uses them",
            ACQUIRED_WITHIN.as_secs()
        )
    };
    let Some(nodes) = NODES.get() else { return busy() };
    let last = || LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let _checking = CHECKING.lock().await;
    if let Some((at, why)) = last().clone()
        && retire::now().saturating_sub(at) < SHARED_FOR_MICROS
    {
        return why;
    }
    let why = match Box::pin(nodes.connect()).await {
        Ok(opened) => {
            let _ = opened.connection.close().await;
            busy()
        }
        Err(error) => error.to_string(),
    };
    *last() = Some((retire::now(), why.clone()));
    why
}

/// Connects to a node. Without TLS where it is only preferred and the server is on this machine: an invite then costs less.
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

/// What an error while connecting means.
fn refused(error: &sqlx::Error) -> UnusableDatabase {
    let code = code(error).unwrap_or_default();
    let is_pooler = error
        .as_database_error()
        .is_some_and(|error| code == "08P01" && error.message().contains("unsupported startup parameter"));
    match code.as_str() {
        "08P01" if is_pooler => UnusableDatabase::Pooler(error.summary()),
        // The role has no right to connect.
        "42501" => UnusableDatabase::Login(error.summary()),
        code if !code.is_empty() && sqlstate::action(code) == ErrorAction::End => {
            UnusableDatabase::Login(error.summary() + &permits_login(error))
        }
        "53300" => UnusableDatabase::Away(format!(
            "{}: allow more (alter role ... connection limit, max_connections), or lower DATABASE_MAX_CONNECTIONS",
            error.summary()
        )),
        _ if matches!(error, sqlx::Error::Io(_)) => {
            UnusableDatabase::Away(format!("{}: is it running there?", error.summary()))
        }
        _ => UnusableDatabase::Away(error.summary()),
    }
}

/// The error for a setting that the server refuses. It leaves out the server's message, which repeats the value.
fn refused_setting(error: &sqlx::Error, variable: &'static str) -> Option<UnusableDatabase> {
    let code = code(error).filter(|code| sqlstate::refuses_a_setting(code))?;
    Some(UnusableDatabase::Setting(variable, code))
}

/// What permits the login, for a role that may not log in: nothing else is wrong with it then.
fn permits_login(error: &sqlx::Error) -> String {
    let message = error.as_database_error().map(sqlx::error::DatabaseError::message).unwrap_or_default();
    let role =
        message.strip_prefix("role \"").and_then(|rest| rest.strip_suffix("\" is not permitted to log in"));
    role.map(|role| format!("; alter role {role} login permits it")).unwrap_or_default()
}

/// The address of a node, for the log.
pub(super) fn name(node: &PgConnectOptions) -> String {
    match node.get_socket() {
        Some(socket) => socket.display().to_string(),
        None if node.get_host().starts_with('/') => node.get_host().to_owned(),
        None if node.get_host().contains(':') => format!("[{}]:{}", node.get_host(), node.get_port()),
        None => format!("{}:{}", node.get_host(), node.get_port()),
    }
}

/// Applies the settings to a new connection. Not as startup parameters: a pooler refuses those.
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
