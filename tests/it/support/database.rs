//! A database for one test, on the server of `DATABASE_URL`.

use super::{
    block_on,
    session_row::{SessionRow, SessionStatus, TextState},
    until,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use std::time::Duration;
use test_support::services;

/// The database is dropped with this value, even while processes are connected to it.
pub struct Database {
    pub url: String,
    pub pool: PgPool,
    name: String,
    server: String,
}

/// Where the tests' databases are made.
pub fn server() -> String {
    services::url("DATABASE_URL")
}

impl Database {
    /// An empty database: the worker migrates it.
    pub async fn create(server: &str, name: &str) -> Self {
        let url = url::Url::parse(server).expect("a server has a URL");
        let mut admin = PgConnection::connect(url.as_str()).await.expect("PostgreSQL is reached");
        let create = format!("create database \"{name}\"");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut admin).await.expect("a database can be made");
        Self::at(server, name)
    }

    /// The database of that name on a server.
    fn at(server: &str, name: &str) -> Self {
        let mut url = url::Url::parse(server).expect("a server has a URL");
        url.set_path(name);
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(Duration::from_secs(30))
            .connect_lazy(url.as_str())
            .expect("the URL is good");
        Self { url: url.into(), pool, name: name.to_owned(), server: server.to_owned() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// From now on the test reads the database on this server, which has taken over. The old one is gone.
    pub fn moves_to(&mut self, server: &str) {
        let moved = Self::at(server, &self.name);
        // Without a drop of the database on the old server.
        let Self { url, pool, server, .. } = self;
        (*url, *pool, *server) = (moved.url.clone(), moved.pool.clone(), moved.server.clone());
        std::mem::forget(moved);
    }

    /// Runs statements that prepare a test.
    pub async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Ends the leases of workers that died, as if time had passed: their tries have ended, and the list has settled.
    pub async fn end_leases(&self) {
        self.execute(
            "update sessions set lease_until = now() - interval '1 s', unsure_from = now() - interval '3 s'
              where text_state = 'begun'",
        )
        .await;
    }

    /// Waits until a query is true.
    pub async fn until_true(&self, what: &str, sql: &str) {
        until(what, || async { self.value::<bool>(sql).await.then_some(()) }).await;
    }

    /// Waits until all events are published.
    pub async fn until_outbox_is_empty(&self) {
        self.until_true("the outbox is empty", "select not exists (select from events)").await;
    }

    /// Waits until the key of the one session is released.
    pub async fn until_key_is_released(&self) {
        self.until_true("the key is released", "select not key_held from sessions").await;
    }

    /// The one session's row, once it has this status.
    pub async fn until_status(&self, status: SessionStatus) -> SessionRow {
        until(&format!("the session is {status:?}"), || async {
            let row = self.session().await;
            (row.status == status).then_some(row)
        })
        .await
    }

    /// Waits until so many texts are in this state; returns all rows.
    pub async fn until_texts_are(&self, count: usize, state: TextState) -> Vec<SessionRow> {
        until(&format!("{count} texts are {state:?}"), || async {
            let rows = self.sessions().await;
            (rows.iter().filter(|row| row.text_state == Some(state)).count() == count).then_some(rows)
        })
        .await
    }

    /// The key of the one session, once its row is there.
    pub async fn until_key(&self) -> String {
        until("the row has a key", || async { self.sessions().await.first()?.session_key.clone() }).await
    }

    /// The one value that a query returns.
    pub async fn value<T>(&self, sql: &str) -> T
    where
        T: Send + Unpin + sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>,
    {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// All sessions, oldest first.
    pub async fn sessions(&self) -> Vec<SessionRow> {
        let rows: Vec<serde_json::Value> =
            sqlx::query_scalar("select to_jsonb(s) from sessions s order by id")
                .fetch_all(&self.pool)
                .await
                .expect("the sessions can be read");
        let typed = |row| serde_json::from_value(row).expect("SessionRow has the table's columns");
        rows.into_iter().map(typed).collect()
    }

    /// The only session.
    pub async fn session(&self) -> SessionRow {
        let mut rows = self.sessions().await;
        assert_eq!(rows.len(), 1, "one session is expected: {rows:#?}");
        rows.remove(0)
    }

    /// The session with this id.
    pub async fn session_with_id(&self, id: uuid::Uuid) -> SessionRow {
        let rows = self.sessions().await;
        rows.into_iter().find(|row| row.id == id).expect("the session has a row")
    }

    /// What no log may hold of the sessions: phone numbers, and the tokens of links. A `drop` may call it.
    pub fn private(&self) -> Vec<String> {
        let sql = "select distinct unnest(array[right(phone, 10), token]) from sessions";
        // A connection of its own: the pool's belong to the test's runtime, which a `drop` blocks.
        let found: Vec<Option<String>> = block_on(async {
            let mut own = PgConnection::connect(&self.url).await.expect("PostgreSQL is reached");
            sqlx::query_scalar(sql).fetch_all(&mut own).await.unwrap_or_default()
        });
        found.into_iter().flatten().collect()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop = format!("drop database if exists \"{}\" with (force)", self.name);
        block_on(async {
            let mut admin = PgConnection::connect(&self.server).await.expect("PostgreSQL is reached");
            if let Err(error) = sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await {
                eprintln!("the database {} stays behind: {error}", self.name);
            }
        });
    }
}
