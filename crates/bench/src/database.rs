//! The database of a run: emptied between measurements, or filled with old sessions.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

#[derive(Debug)]
pub struct Database {
    url: String,
    /// Old sessions that are there.
    filled: u32,
}

/// Ended long ago: its key is released, the rest of it stays as it was. Ids, times and texts are like the worker's own.
const OLD_ROWS: &str = "
    insert into sessions (id, group_id, session_key, status, session_type, session_params, phone, invitation_text, token,
                          requested_by, message_id, correlation_id, attempts, provider_message_id, request_sha256,
                          owns_message_id, text_state, created_at, sent_at, ended_at, expires_at, updated_at)
    select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(random, 1, 3) || '8'
            || substr(random, 4, 15))::uuid,
           72, lpad(n::text, 9, '0'), 'expired', 1, '{\"camera\": \"back\", \"resolution\": \"352x288\"}',
           '+1415' || 2000000 + n % 8000000,
           'Join your session: http://127.0.0.1:8080/s/' || substr(random, 1, 16) || ' (code ' || lpad(n::text, 9, '0') || ')',
           substr(random, 1, 16), 'gkey:12345', 'old-' || n, 'old-' || n, 1, 'SM' || random, decode(random || random, 'hex'),
           true, 'accepted', at, at, at + interval '1 day', at + interval '1 day', at + interval '2 days'
      from (select n, md5(n || '-old') as random, now() - interval '2 years' * (1.01 - n::float8 / $1) as at
              from generate_series(1, $1) n) old";

impl Database {
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), filled: 0 }
    }

    pub async fn version(&self) -> Result<String, sqlx::Error> {
        let mut line = self.connect().await?;
        sqlx::query_scalar("select split_part(current_setting('server_version'), ' ', 1)")
            .fetch_one(&mut line)
            .await
    }

    /// Leaves only so many old sessions, or those and the few of the last measurement beside them.
    pub async fn fill(&mut self, rows: u32) -> Result<(), sqlx::Error> {
        let mut line = self.connect().await?;
        if self.filled != rows || rows == 0 {
            sqlx::query("truncate sessions").execute(&mut line).await?;
            self.filled = 0;
        }
        if self.filled != rows {
            let fill = OLD_ROWS.replace("$1", &rows.to_string());
            sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut line).await?;
            self.filled = rows;
        }
        sqlx::query("vacuum analyze sessions").execute(&mut line).await?;
        // So that none comes in the middle by what was filled in. Not everybody may.
        let _ = sqlx::query("checkpoint").execute(&mut line).await;
        line.close().await
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(&self.url).await
    }
}
