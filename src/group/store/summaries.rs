//! Groups and keys as the console lists them, without a secret.

use super::last_uses::KeyKind;
use crate::group_id::GroupId;
use sqlx::PgExecutor;
use time::OffsetDateTime;

/// A group in a list.
#[derive(Debug, Clone)]
pub(crate) struct GroupSummary {
    pub(crate) id: GroupId,
    pub(crate) name: Option<String>,
    pub(crate) enabled: bool,
    pub(crate) paused_at: Option<OffsetDateTime>,
    /// Active ones.
    pub(crate) api_keys: i64,
    /// Active ones.
    pub(crate) jwt_secrets: i64,
    /// When one of the active keys and secrets was last used.
    pub(crate) last_used_at: Option<OffsetDateTime>,
}

/// An active key or secret of a group, without it.
#[derive(Debug, Clone)]
pub(crate) struct KeySummary {
    /// `API key` or `JWT secret`.
    pub(crate) kind: String,
    pub(crate) id: i64,
    pub(crate) kid: Option<String>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) last_used_at: Option<OffsetDateTime>,
}

/// The groups whose ids are greater than `after`, in the order of their ids.
pub(crate) async fn page(
    db: impl PgExecutor<'_>,
    after: i64,
    limit: i64,
) -> Result<Vec<GroupSummary>, sqlx::Error> {
    sqlx::query_as!(
        GroupSummary,
        r#"select g.id as "id: GroupId", g.name, g.enabled, g.paused_at, a.keys as "api_keys!", j.keys as "jwt_secrets!",
                  greatest(a.used, j.used) as last_used_at
             from (select id, name, enabled, paused_at from groups where id > $1 order by id limit $2) g
             cross join lateral (select count(*) as keys, max(u.last_used_at) as used
                                   from group_api_keys k left join key_uses u on u.kind = 'api_key' and u.key_id = k.id
                                  where k.group_id = g.id and k.revoked_at is null) a
             cross join lateral (select count(*) as keys, max(u.last_used_at) as used
                                   from group_jwt_secrets s left join key_uses u on u.kind = 'jwt_secret' and u.key_id = s.id
                                  where s.group_id = g.id and s.revoked_at is null) j
            order by g.id"#,
        after,
        limit,
    )
    .fetch_all(db)
    .await
}

/// A key or secret of a group that was revoked, without it.
#[derive(Debug, Clone)]
pub(crate) struct RevokedKey {
    pub(crate) id: i64,
    pub(crate) kid: Option<String>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) revoked_at: OffsetDateTime,
    /// `None` if no use is recorded.
    pub(crate) last_used_at: Option<OffsetDateTime>,
}

/// The revoked keys of a group and of one kind, the newest first.
pub(crate) async fn revoked_keys(
    db: impl PgExecutor<'_>,
    kind: KeyKind,
    group: GroupId,
    limit: i64,
) -> Result<Vec<RevokedKey>, sqlx::Error> {
    sqlx::query_as!(
        RevokedKey,
        r#"select k.id as "id!", k.kid, k.created_at as "created_at!", k.revoked_at as "revoked_at!",
                  u.last_used_at as "last_used_at?"
             from (select id, null as kid, created_at, revoked_at from group_api_keys where group_id = $2 and $1 = 'api_key'
                   union all
                   select id, kid, created_at, revoked_at from group_jwt_secrets where group_id = $2 and $1 = 'jwt_secret') k
             left join key_uses u on u.kind = $1 and u.key_id = k.id
            where k.revoked_at is not null
            order by k.revoked_at desc, k.id desc limit $3"#,
        kind.as_str(),
        group.get(),
        limit,
    )
    .fetch_all(db)
    .await
}

/// The active keys and secrets of a group, the newest first.
pub(crate) async fn active_keys(
    db: impl PgExecutor<'_>,
    group: GroupId,
    limit: i64,
) -> Result<Vec<KeySummary>, sqlx::Error> {
    sqlx::query_as!(
        KeySummary,
        r#"select k.kind as "kind!", k.id as "id!", k.kid, k.created_at as "created_at!",
                  u.last_used_at as "last_used_at?"
             from (select 'API key' as kind, 'api_key' as used_as, id, null as kid, created_at from group_api_keys
                    where group_id = $1 and revoked_at is null
                   union all
                   select 'JWT secret', 'jwt_secret', id, kid, created_at from group_jwt_secrets
                    where group_id = $1 and revoked_at is null) k
             left join key_uses u on u.kind = k.used_as and u.key_id = k.id
            order by k.created_at desc, k.id desc limit $2"#,
        group.get(),
        limit,
    )
    .fetch_all(db)
    .await
}
