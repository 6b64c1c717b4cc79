//! A database for one test, on the server of `DATABASE_URL`.

use super::block_on;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use std::time::Duration;
use test_support::services;

/// Dropped with its value, whoever is still connected.
pub struct Database {
    pub url: String,
    pub pool: PgPool,
    name: String,
}

/// Where the tests' databases are made.
pub fn server() -> String {
    services::url("DATABASE_URL")
}

impl Database {
    /// An empty one: the worker migrates it.
    pub async fn create(name: &str) -> Self {
        let mut url = url::Url::parse(&server()).expect("DATABASE_URL is a URL");
        let mut admin = PgConnection::connect(url.as_str()).await.expect("PostgreSQL is reached");
        let create = format!("create database \"{name}\"");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut admin).await.expect("a database can be made");
        url.set_path(name);
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(Duration::from_secs(30))
            .connect_lazy(url.as_str())
            .expect("the URL is good");
        Self { url: url.into(), pool, name: name.to_owned() }
    }

    /// Runs statements that change what a test begins with.
    pub async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// As if the time of the workers that died had passed: their tries have surely ended, and the list has settled.
    pub async fn leases_are_over(&self) {
        self.execute(
            "update sessions set lease_until = now() - interval '1 s', unsure_from = now() - interval '3 s'
              where text_state = 'begun'",
        )
        .await;
    }

    /// Waits until that time of the one session is over.
    pub async fn passes(&self, column: &str) {
        let over = format!("select {column} < now() from sessions");
        super::until("its time is over", || async { self.value::<bool>(&over).await.then_some(()) }).await;
    }

    /// The one value that a query gives.
    pub async fn value<T>(&self, sql: &str) -> T
    where
        T: Send + Unpin + sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>,
    {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The sessions, oldest first, as objects named by column.
    pub async fn sessions(&self) -> Vec<serde_json::Value> {
        sqlx::query_scalar("select to_jsonb(s) from sessions s order by id")
            .fetch_all(&self.pool)
            .await
            .expect("the sessions can be read")
    }

    /// The one session that there is.
    pub async fn session(&self) -> serde_json::Value {
        let mut rows = self.sessions().await;
        assert_eq!(rows.len(), 1, "one session is expected: {rows:#?}");
        rows.remove(0)
    }

    /// What no log may hold of the sessions: phone numbers, and the tokens of links. Callable from a `drop`.
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
            let mut admin = PgConnection::connect(&server()).await.expect("PostgreSQL is reached");
            if let Err(error) = sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await {
                eprintln!("the database {} stays behind: {error}", self.name);
            }
        });
    }
}
