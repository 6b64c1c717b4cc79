//! The database of a run. Between measurements it is emptied, or filled with old sessions.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

#[derive(Debug)]
pub(crate) struct Database {
    url: String,
    /// Old sessions in the table.
    old_rows: u32,
}

/// Sessions that ended long ago, whose session keys are free again. Ids, times and texts are like the worker's own.
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
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), old_rows: 0 }
    }

    pub(crate) async fn version(&self) -> Result<String, sqlx::Error> {
        let mut connection = self.connect().await?;
        sqlx::query_scalar("select split_part(current_setting('server_version'), ' ', 1)")
            .fetch_one(&mut connection)
            .await
    }

    /// Leaves this many old sessions in the table. With the same number again, the few sessions of the last measurement stay
    /// as well.
    pub(crate) async fn fill(&mut self, rows: u32) -> Result<(), sqlx::Error> {
        let mut connection = self.connect().await?;
        if self.old_rows != rows || rows == 0 {
            sqlx::query("truncate sessions").execute(&mut connection).await?;
            self.old_rows = 0;
        }
        if self.old_rows != rows {
            let fill = OLD_ROWS.replace("$1", &rows.to_string());
            sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut connection).await?;
            self.old_rows = rows;
        }
        sqlx::query("vacuum analyze sessions").execute(&mut connection).await?;
        // Otherwise the fill could cause a checkpoint during the measurement. Not every role may do this.
        let _ = sqlx::query("checkpoint").execute(&mut connection).await;
        connection.close().await
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(&self.url).await
    }
}
