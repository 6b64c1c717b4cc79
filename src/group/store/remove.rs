//! Removing a group.

use super::{error::StoreError, groups::change, keys};
use crate::{audit::Operator, group_id::GroupId};
use serde::Serialize;
use sqlx::PgPool;

/// What belongs to a group, beside its sessions.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupBelongings {
    /// Whether the group itself exists.
    pub(crate) group: bool,
    /// Revoked ones too.
    pub(crate) api_keys: i64,
    pub(crate) jwt_secrets: i64,
    pub(crate) addresses: i64,
}

/// What stays when a group is removed, as it is not the group's alone.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupRemains {
    /// Opt-outs from the group's own From number.
    pub(crate) optouts: i64,
    /// Rows of the Authorization Service.
    pub(crate) website_sessions: i64,
}

/// Counts what [`remove`] would delete.
pub(crate) async fn belongings(pool: &PgPool, group: GroupId) -> Result<GroupBelongings, sqlx::Error> {
    sqlx::query_as!(
        GroupBelongings,
        r#"select exists (select from groups where id = $1) as "group!",
                  (select count(*) from group_api_keys where group_id = $1) as "api_keys!",
                  (select count(*) from group_jwt_secrets where group_id = $1) as "jwt_secrets!",
                  (select count(*) from addresses where group_id = $1) as "addresses!""#,
        group.get()
    )
    .fetch_one(pool)
    .await
}

/// Counts what stays.
pub(crate) async fn remains(pool: &PgPool, group: GroupId) -> Result<GroupRemains, sqlx::Error> {
    sqlx::query_as!(
        GroupRemains,
        r#"select (select count(*) from optouts where sender = (select sms_from from groups where id = $1)) as "optouts!",
                  (select count(*) from website_sessions where group_id = $1) as "website_sessions!""#,
        group.get()
    )
    .fetch_one(pool)
    .await
}

/// Deletes a group with its keys, their uses and its addresses. Returns whether it was there.
pub(crate) async fn remove(operator: &Operator, group: GroupId) -> Result<bool, StoreError> {
    let id = group.get();
    change(operator, group, async |tx| {
        keys::lock(tx).await?;
        sqlx::query!(
            "with api_keys as (delete from group_api_keys where group_id = $1 returning id),
              jwt_secrets as (delete from group_jwt_secrets where group_id = $1 returning id),
              gone as (select 'api_key' as kind, id from api_keys union all select 'jwt_secret', id from jwt_secrets)
         delete from key_uses u using gone where u.kind = gone.kind and u.key_id = gone.id",
            id
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!("delete from addresses where group_id = $1", id).execute(&mut *tx).await?;
        let removed = sqlx::query!("delete from groups where id = $1", id).execute(tx).await?;
        Ok(removed.rows_affected() > 0)
    })
    .await
}
