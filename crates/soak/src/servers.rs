//! PostgreSQL and RabbitMQ: ended and started by `scripts/soak-service`, on the same ports again.

use crate::options::Surroundings;
use sqlx::{Connection, PgConnection, Row};
use std::{
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

const AGAIN: Duration = Duration::from_millis(20);
/// How long the outbox may take to be empty once all is well.
const EMPTY_WITHIN: Duration = Duration::from_secs(30);
const UP_WITHIN: Duration = Duration::from_secs(90);

/// `name` is `rabbitmq` or `postgres`, `what` is `stop`, `crash` or `start`.
pub async fn service(
    surroundings: &Surroundings,
    name: &'static str,
    what: &'static str,
) -> Result<(), String> {
    let run = surroundings.run.clone();
    let ran = tokio::task::spawn_blocking(move || {
        Command::new("bash")
            .args(["scripts/soak-service", name, what])
            .env("SOAK_RUN_DIR", run)
            .stdin(Stdio::null())
            .status()
    });
    match ran.await {
        Ok(Ok(status)) if status.success() => Ok(()),
        other => Err(format!("scripts/soak-service {name} {what}: {other:?}")),
    }
}

/// Waits until the broker answers AMQP's protocol header with a method frame, and gives the time of that.
pub async fn broker_is_up(url: &str) -> Result<OffsetDateTime, String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    let address = format!("{}:{}", url.host_str().unwrap_or("127.0.0.1"), url.port().unwrap_or(5672));
    let up = async {
        while amqp_answers(&address).await.is_none() {
            sleep(AGAIN).await;
        }
    };
    timeout(UP_WITHIN, up).await.map_err(|_| "the broker does not come up again".to_owned())?;
    Ok(OffsetDateTime::now_utc())
}

async fn amqp_answers(address: &str) -> Option<()> {
    let mut wire = TcpStream::connect(address).await.ok()?;
    wire.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
    let first = timeout(Duration::from_secs(2), wire.read_u8()).await.ok()?.ok()?;
    (first == 1).then_some(())
}

/// Waits until the database takes connections.
pub async fn database_is_up(url: &str) -> Result<(), String> {
    let up = async {
        while PgConnection::connect(url).await.is_err() {
            sleep(AGAIN).await;
        }
    };
    timeout(UP_WITHIN, up).await.map_err(|_| "the database does not come up again".to_owned())
}

/// Ends every other connection to the database, and says how many.
pub async fn massacre(url: &str) -> Result<i64, sqlx::Error> {
    let mut own = PgConnection::connect(url).await?;
    let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()";
    sqlx::query_scalar(sql).fetch_one(&mut own).await
}

/// The process id of a backend that serves a worker.
pub async fn a_backend(url: &str) -> Result<Option<i32>, sqlx::Error> {
    let mut own = PgConnection::connect(url).await?;
    let sql = "select pid from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid() order by random() limit 1";
    sqlx::query_scalar(sql).fetch_optional(&mut own).await
}

/// The sessions as objects named by column, without what opens a link.
pub async fn rows(url: &str) -> Result<Vec<serde_json::Value>, sqlx::Error> {
    let mut own = PgConnection::connect(url).await?;
    let sql = "select to_jsonb(s) - 'token' - 'request_sha256' from sessions s order by id";
    sqlx::query(sql).fetch_all(&mut own).await?.iter().map(|row| row.try_get(0)).collect()
}

/// Waits until no event waits to be published; whether it came to that.
pub async fn outbox_is_empty(url: &str) -> bool {
    let empty = async {
        while outbox(url).await.ok() != Some(0) {
            sleep(AGAIN).await;
        }
    };
    timeout(EMPTY_WITHIN, empty).await.is_ok()
}

async fn outbox(url: &str) -> Result<i64, sqlx::Error> {
    let mut own = PgConnection::connect(url).await?;
    sqlx::query_scalar("select count(*) from events").fetch_one(&mut own).await
}
