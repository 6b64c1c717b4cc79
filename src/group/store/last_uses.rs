//! When each key was last used: the table `key_uses`.

use crate::group_id::GroupId;
use sqlx::PgPool;
use std::collections::HashMap;
use strum::IntoStaticStr;
use time::OffsetDateTime;

/// The table that a key is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum KeyKind {
    ApiKey,
    JwtSecret,
}

impl KeyKind {
    pub(super) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The last use of a key, by this process's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyUse {
    pub(crate) kind: KeyKind,
    pub(crate) id: i64,
    /// Unix seconds.
    pub(crate) at: i64,
}

impl KeyUse {
    /// How many seconds ago that was. The database's clock gives the time.
    fn ago(&self) -> f64 {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        f64::from(i32::try_from(now.saturating_sub(self.at)).unwrap_or_default().max(0))
    }
}

/// Writes the uses of several keys. Of several processes that use a key, mostly one changes its row each minute.
pub(crate) async fn write(pool: &PgPool, uses: &[KeyUse]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into key_uses as k (kind, key_id, last_used_at)
         select u.kind, u.id, now() - make_interval(secs => u.ago)
           from unnest($1::text[], $2::bigint[], $3::float8[]) as u (kind, id, ago)
          -- In one order, so that two processes do not wait for each other.
          order by u.kind, u.id
         on conflict (kind, key_id) do update set last_used_at = excluded.last_used_at
          where k.last_used_at < excluded.last_used_at - interval '50 seconds'",
        &uses.iter().map(|key| key.kind.as_str()).collect::<Vec<_>>() as &[&str],
        &uses.iter().map(|key| key.id).collect::<Vec<_>>(),
        &uses.iter().map(KeyUse::ago).collect::<Vec<_>>(),
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The last uses of a group's active keys of a kind, by their ids.
pub(crate) async fn of_group(
    pool: &PgPool,
    kind: KeyKind,
    group: GroupId,
) -> Result<HashMap<i64, OffsetDateTime>, sqlx::Error> {
    let rows = sqlx::query!(
        "select key_id, last_used_at from key_uses
          where kind = $1 and key_id in (select id from group_api_keys where group_id = $2 and $1 = 'api_key'
                                         union all
                                         select id from group_jwt_secrets where group_id = $2 and $1 = 'jwt_secret')",
        kind.as_str(),
        group.get(),
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.key_id, row.last_used_at)).collect())
}
