//! PostgreSQL and RabbitMQ. `./dev` (crates/xtask) stops and starts them, always on the same ports.

use crate::nodes;
use sqlx::{Connection, PgConnection, Row};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use url::Url;

const RETRY_DELAY: Duration = Duration::from_millis(20);
/// How long the workers may take to empty the outbox, when no faults happen any more.
const OUTBOX_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one of several database nodes may take to accept a connection.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a server may take to start.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(90);

/// Stops and starts the servers, by the program behind `./dev`.
#[derive(Debug, Clone)]
pub(crate) struct ServerControl {
    /// The directory of the run.
    pub run: PathBuf,
    pub xtask: PathBuf,
}

impl ServerControl {
    /// `server` is the name of its process, such as `rabbitmq`. `action` is `stop`, `crash`, `start` or `rejoin`.
    pub(crate) async fn act(&self, server: &str, action: &'static str) -> Result<(), String> {
        let mut command = Command::new(&self.xtask);
        command.args(["soak-service", server, action]).env("SOAK_RUN_DIR", &self.run).stdin(Stdio::null());
        match tokio::task::spawn_blocking(move || command.status()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            other => Err(format!("xtask soak-service {server} {action}: {other:?}")),
        }
    }
}

/// Waits until the broker, which has one node, answers AMQP's protocol header with a method frame. Gives the time.
pub(crate) async fn wait_for_broker(url: &str, limit: Duration) -> Result<OffsetDateTime, String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    let address = format!("{}:{}", url.host_str().unwrap_or("127.0.0.1"), url.port().unwrap_or(5672));
    let up = async {
        while amqp_answers(&address).await.is_none() {
            sleep(RETRY_DELAY).await;
        }
    };
    timeout(limit, up).await.map_err(|_| "the broker does not start again".to_owned())?;
    Ok(OffsetDateTime::now_utc())
}

async fn amqp_answers(address: &str) -> Option<()> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
    let first = timeout(Duration::from_secs(2), stream.read_u8()).await.ok()?.ok()?;
    (first == 1).then_some(())
}

/// Connects to the database, of several nodes to the one that takes writes.
async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    let urls = nodes::database_urls(url);
    if let [url] = urls.as_slice() {
        return PgConnection::connect(url).await;
    }
    let mut failure = sqlx::Error::PoolTimedOut;
    for url in urls {
        let connecting = async {
            let mut connection = PgConnection::connect(&url).await?;
            let is_standby: bool =
                sqlx::query_scalar("select pg_is_in_recovery()").fetch_one(&mut connection).await?;
            Ok(if is_standby { None } else { Some(connection) })
        };
        match timeout(NODE_TIMEOUT, connecting).await {
            Ok(Ok(Some(connection))) => return Ok(connection),
            Ok(Err(error)) => failure = error,
            Ok(Ok(None)) | Err(_) => {}
        }
    }
    Err(failure)
}

/// Makes a standby the primary, which waits for no standby. Returns once it takes writes.
pub(crate) async fn promote(url: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("select pg_promote(true, 60)").execute(&mut connection).await?;
    set_synchronous(url, false).await?;
    // A statement that is answered shows that writes are taken.
    sqlx::query("create table if not exists soak_probe ()").execute(&mut connection).await?;
    sqlx::query("drop table soak_probe").execute(&mut connection).await?;
    Ok(())
}

/// Sets whether the primary's commits wait for its standby.
pub(crate) async fn set_synchronous(url: &str, is_synchronous: bool) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let set = if is_synchronous {
        "alter system set synchronous_standby_names = '*'"
    } else {
        "alter system set synchronous_standby_names = ''"
    };
    sqlx::query(set).execute(&mut connection).await?;
    sqlx::query("select pg_reload_conf()").execute(&mut connection).await?;
    Ok(())
}

/// Whether a standby follows this primary.
pub(crate) async fn is_standby_streaming(url: &str) -> Result<bool, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let sql = "select exists (select from pg_stat_replication where state = 'streaming')";
    sqlx::query_scalar(sql).fetch_one(&mut connection).await
}

/// Waits until the database accepts connections.
pub(crate) async fn wait_for_database(url: &str) -> Result<(), String> {
    let up = async {
        while connect(url).await.is_err() {
            sleep(RETRY_DELAY).await;
        }
    };
    timeout(START_TIMEOUT, up).await.map_err(|_| "the database does not start again".to_owned())
}

/// Ends all other connections to the database. Gives their number.
pub(crate) async fn terminate_backends(url: &str) -> Result<i64, sqlx::Error> {
    let mut connection = connect(url).await?;
    let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()";
    sqlx::query_scalar(sql).fetch_one(&mut connection).await
}

/// The process id of a random backend that serves a worker.
pub(crate) async fn random_backend(url: &str) -> Result<Option<i32>, sqlx::Error> {
    let mut connection = connect(url).await?;
    let sql = "select pid from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid() order by random() limit 1";
    sqlx::query_scalar(sql).fetch_optional(&mut connection).await
}

/// The sessions as JSON objects, without the token, which opens the visitor's link.
pub(crate) async fn session_rows(url: &str) -> Result<Vec<serde_json::Value>, sqlx::Error> {
    let mut connection = connect(url).await?;
    let sql = "select to_jsonb(s) - 'token' - 'request_sha256' from sessions s order by id";
    sqlx::query(sql).fetch_all(&mut connection).await?.iter().map(|row| row.try_get(0)).collect()
}

/// Waits until all events are published. `false` if that takes too long.
pub(crate) async fn wait_for_empty_outbox(url: &str) -> bool {
    let empty = async {
        while outbox_size(url).await.ok() != Some(0) {
            sleep(RETRY_DELAY).await;
        }
    };
    timeout(OUTBOX_TIMEOUT, empty).await.is_ok()
}

/// How many migrations the schema has.
pub(crate) async fn migrations(url: &str) -> Result<i64, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query_scalar("select count(*) from _sqlx_migrations where success").fetch_one(&mut connection).await
}

async fn outbox_size(url: &str) -> Result<i64, sqlx::Error> {
    let mut connection = connect(url).await?;
    sqlx::query_scalar("select count(*) from events").fetch_one(&mut connection).await
}
