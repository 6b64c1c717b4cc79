//! The table `processes`: each worker and gateway reports there that it runs, so that the others and `doctor` notice one that
//! is stopped, hangs, or has other settings.

mod local;

use crate::{
    config::{DatabaseConfig, GatewayConfig, WorkerConfig},
    db::{StatementError, kinds},
    seal::SecretsKey,
    supervise::{Pulse, Task, TaskHandle, keep_running},
};
pub(crate) use local::files_problem;
use local::{Place, Presence};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use sqlx::{PgExecutor, PgPool};
use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use strum::IntoStaticStr;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The time between two reports of a process.
const EVERY: Duration = Duration::from_secs(2);
/// The same, while it is not ready.
const EVERY_UNTIL_READY: Duration = Duration::from_millis(500);
/// How long one report may take.
const REPORTS_WITHIN: Duration = Duration::from_secs(4);
/// A process that has not reported for so long is silent.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(7);
/// A process that is gone from this machine without having deleted its row is forgotten after this.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(1);
/// Problems of a row, and characters of each, at most.
const PROBLEMS: usize = 20;
const PROBLEM_CHARS: usize = 1_000;

/// Whether a process does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum ProcessState {
    Ready,
    #[strum(serialize = "not ready")]
    NotReady,
    Stopping,
}

impl ProcessState {
    pub(crate) fn of(is_stopping: bool, is_ready: bool) -> Self {
        match (is_stopping, is_ready) {
            (true, _) => Self::Stopping,
            (false, true) => Self::Ready,
            (false, false) => Self::NotReady,
        }
    }
}

/// What a process reports of itself.
#[derive(Debug, Clone)]
pub(crate) struct SelfReport {
    pub state: ProcessState,
    pub problems: Vec<String>,
}

/// A row of the table.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct ProcessRow {
    pub kind: String,
    pub host: String,
    machine: String,
    pub pid: i32,
    start_ticks: i64,
    pub version: String,
    pub state: String,
    pub problems: Vec<String>,
    pub settings: Value,
    /// Seconds since its first and its last report.
    pub runs_for: f64,
    pub silent_for: f64,
    id: Uuid,
}

/// The silent processes, and why this process does not report, for `/readyz`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Neighbours(Arc<Mutex<Vec<String>>>);

impl Neighbours {
    pub(crate) fn problems(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This process, as it reports itself.
#[derive(Clone)]
pub(crate) struct Heartbeat {
    pub pool: PgPool,
    pub identity: Identity,
    pub neighbours: Neighbours,
}

/// What stays the same while a process runs.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    id: Uuid,
    kind: &'static str,
    place: Place,
    settings: Value,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Identity {
    pub(crate) fn of_worker(config: &WorkerConfig) -> Self {
        let provider = &config.provider;
        let mut settings =
            shared_settings(&config.database, &config.secrets_key, &config.public_url.base, config.http_addr);
        settings.insert("TWILIO_ACCOUNT_SID".to_owned(), json!(provider.account_sid));
        // A worker may have an API key instead, which the gateway does not know.
        if provider.user == provider.account_sid {
            settings.extend([hashed("TWILIO_AUTH_TOKEN", &config.secrets_key, &provider.password)]);
        }
        Self::new("worker", settings)
    }

    pub(crate) fn of_gateway(config: &GatewayConfig) -> Self {
        let mut settings =
            shared_settings(&config.database, &config.secrets_key, &config.public_url.base, config.http_addr);
        let console_token = config.console.as_ref().and_then(|console| console.token.as_ref());
        let secrets =
            [("TWILIO_AUTH_TOKEN", config.twilio_auth_token.as_ref()), ("CONSOLE_TOKEN", console_token)];
        let secrets = secrets.into_iter().filter_map(|(name, secret)| Some((name, secret?)));
        settings.extend(secrets.map(|(name, secret)| hashed(name, &config.secrets_key, secret)));
        Self::new("gateway", settings)
    }

    fn new(kind: &'static str, settings: Map<String, Value>) -> Self {
        Self { id: Uuid::new_v4(), kind, place: Place::of_this_process(), settings: Value::Object(settings) }
    }
}

fn shared_settings(
    database: &DatabaseConfig,
    secrets_key: &SecretsKey,
    public_url: &str,
    http_addr: SocketAddr,
) -> Map<String, Value> {
    let settings = [
        ("DATABASE_MAX_CONNECTIONS", json!(database.max_connections)),
        ("SECRETS_KEY", json!(secrets_key.fingerprint("SECRETS_KEY", b""))),
        ("PUBLIC_URL", json!(public_url)),
        ("HTTP_ADDR", json!(http_addr.to_string())),
    ];
    settings.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

/// A secret setting as a keyed hash, by which processes are compared.
fn hashed(name: &'static str, key: &SecretsKey, secret: &SecretString) -> (String, Value) {
    (name.to_owned(), json!(key.fingerprint(name, secret.expose_secret().as_bytes())))
}

impl Heartbeat {
    /// Reports until `stop`, and deletes the row then. `report` says what this process reports of itself.
    pub(crate) fn start(
        self,
        report: impl Fn() -> SelfReport + Clone + Send + Sync + 'static,
        stop: CancellationToken,
    ) -> TaskHandle {
        keep_running(Task::Heartbeat, stop.clone(), move |pulse| {
            self.clone().run(report.clone(), stop.clone(), pulse)
        })
    }

    async fn run(self, report: impl Fn() -> SelfReport, stop: CancellationToken, pulse: Pulse) {
        // Since when each report worked. After an outage the others need a moment to report again.
        let mut well_since: Option<Instant> = None;
        while !stop.is_cancelled() {
            pulse.step("reporting that this process runs");
            let report = report();
            let wait = if report.state == ProcessState::Ready { EVERY } else { EVERY_UNTIL_READY };
            let reported = timeout(REPORTS_WITHIN, self.beat(report));
            let problems = match reported.await {
                Ok(Ok(rows)) => {
                    let since = *well_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= SILENT_AFTER { self.problems_of(rows).await } else { Vec::new() }
                }
                // A database that is away is a problem of its own.
                failed => {
                    well_since = None;
                    let error = failed.ok().and_then(Result::err).filter(|error| !error.is_transient());
                    error.iter().map(cannot_report).collect()
                }
            };
            *self.neighbours.lock() = problems;
            pulse.idle();
            let _ = stop.run_until_cancelled(sleep(wait)).await;
        }
        pulse.step("deleting the row of this process");
        let _ = timeout(REPORTS_WITHIN, forget(&self.pool, self.identity.id)).await;
    }

    /// Reports, and returns the rows of silent processes.
    async fn beat(&self, report: SelfReport) -> Result<Vec<ProcessRow>, sqlx::Error> {
        let Identity { id, kind, place, settings } = &self.identity;
        let problems: Vec<String> =
            report.problems.iter().take(PROBLEMS).map(|text| shortened(text)).collect();
        let beat = sqlx::query_as(
            "with own as (
                 insert into processes (id, kind, host, machine, pid, start_ticks, version, state, problems, settings)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                 on conflict (id) do update set seen_at = now(), state = excluded.state, problems = excluded.problems),
             old as (delete from processes where seen_at < now() - interval '1 hour')
             select id, kind, host, machine, pid, start_ticks, version, state, problems, settings,
                    extract(epoch from now() - started_at)::float8 as runs_for,
                    extract(epoch from now() - seen_at)::float8 as silent_for
               from processes where seen_at < now() - make_interval(secs => $11) and id <> $1
              order by seen_at limit 100",
        )
        .bind(id)
        .bind(kind)
        .bind(&place.host)
        .bind(&place.machine)
        .bind(place.pid)
        .bind(place.start_ticks)
        .bind(env!("CARGO_PKG_VERSION"))
        .bind(<&str>::from(report.state))
        .bind(problems)
        .bind(settings)
        .bind(SILENT_AFTER.as_secs_f64())
        .fetch_all(&self.pool)
        .await;
        kinds::HEARTBEAT.note(&beat);
        beat
    }

    /// Forgets those that are gone from this machine, and returns a problem for each of the others.
    async fn problems_of(&self, rows: Vec<ProcessRow>) -> Vec<String> {
        let mut problems = Vec::new();
        for row in rows {
            if row.presence(&self.identity.place) == Presence::Gone {
                if row.silent_for >= FORGOTTEN_AFTER.as_secs_f64() {
                    let _ = forget(&self.pool, row.id).await;
                }
            } else if let Some((cause, remedy)) = row.silence_seen_from(&self.identity.place) {
                problems.push(format!("{cause}. What to do: {remedy}"));
            }
        }
        problems
    }
}

fn cannot_report(error: &sqlx::Error) -> String {
    format!(
        "this process cannot report to the table processes ({}), so that others do not notice when it stops. What to do: \
         session-invite doctor names the missing right",
        error.summary()
    )
}

fn shortened(text: &str) -> String {
    text.chars().take(PROBLEM_CHARS).collect()
}

async fn forget(pool: &PgPool, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("delete from processes where id = $1").bind(id).execute(pool).await?;
    Ok(())
}

/// All processes, for `doctor` and the console.
pub(crate) async fn list(db: impl PgExecutor<'_>) -> Result<Vec<ProcessRow>, sqlx::Error> {
    sqlx::query_as(
        "select id, kind, host, machine, pid, start_ticks, version, state, problems, settings,
                extract(epoch from now() - started_at)::float8 as runs_for,
                extract(epoch from now() - seen_at)::float8 as silent_for
           from processes order by kind desc, host, pid limit 1000",
    )
    .fetch_all(db)
    .await
}

impl ProcessRow {
    /// The kind, the process id and the host.
    pub(crate) fn name(&self) -> String {
        format!("{} {} on {}", self.kind, self.pid, self.host)
    }

    fn presence(&self, here: &Place) -> Presence {
        if self.machine == here.machine && !here.machine.is_empty() {
            local::presence(self.pid, self.start_ticks)
        } else {
            Presence::Elsewhere
        }
    }

    /// The same, as it is seen from this process.
    pub(crate) fn silence(&self) -> Option<(String, String)> {
        self.silence_seen_from(&Place::of_this_process())
    }

    /// If the process is silent: what is known of that, and what to do.
    fn silence_seen_from(&self, here: &Place) -> Option<(String, String)> {
        let presence = self.presence(here);
        // The kernel of this machine knows of a stopped process at once.
        if self.silent_for < SILENT_AFTER.as_secs_f64() && presence != Presence::Stopped {
            return None;
        }
        let (name, seconds, pid) = (self.name(), self.silent_for.floor(), self.pid);
        let waits = if self.kind == "worker" { ", and the invites in its hands wait" } else { "" };
        Some(match presence {
            Presence::Stopped => (
                format!(
                    "the {name} is stopped by a signal (SIGSTOP): it has not reported for {seconds} s{waits}"
                ),
                format!("kill -CONT {pid}"),
            ),
            Presence::Runs => (
                format!(
                    "the {name} runs, and has not reported for {seconds} s: it hangs, or does not reach the database"
                ),
                format!(
                    "look at its log, and at its own report: session-invite ready --http-addr {}",
                    self.http_addr()
                ),
            ),
            Presence::Gone => (
                format!(
                    "the {name} has ended {seconds} s ago: it was killed, or it crashed, or the database did not answer at its end"
                ),
                "look at the end of its log, and at the kernel's for a lack of memory: dmesg | tail"
                    .to_owned(),
            ),
            Presence::Elsewhere => (
                format!(
                    "the {name} has not reported for {seconds} s{waits}: it is stopped or was killed, or it or its host is cut \
                     off from the database"
                ),
                format!(
                    "on {}: ps -o pid,stat,etime,args -p {pid} -- the state T is stopped: kill -CONT {pid}; no line: it has \
                     ended, and its log says why",
                    self.host
                ),
            ),
        })
    }

    fn http_addr(&self) -> &str {
        self.settings["HTTP_ADDR"].as_str().unwrap_or("127.0.0.1:9464")
    }
}
