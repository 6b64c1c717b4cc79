//! A new group.

use super::{
    error::StoreError,
    groups::write,
    keys::{self, NewSecret},
};
use crate::{db, group::options::Options, group_id::GroupId, seal::SecretsKey};
use secrecy::SecretString;
use sqlx::PgPool;

/// Adds a group with its first key, and a JWT secret if there is one.
pub async fn add(
    pool: &PgPool,
    secrets: &SecretsKey,
    group: GroupId,
    options: &Options,
    api_key: &SecretString,
    jwt: Option<&NewSecret>,
) -> Result<(), StoreError> {
    let mut tx = db::begin(pool).await?;
    keys::lock(&mut tx).await?;
    let added = sqlx::query!(
        "insert into groups (id, template) values ($1, $2) on conflict do nothing",
        group.get(),
        options.template
    )
    .execute(&mut *tx)
    .await?;
    if added.rows_affected() == 0 {
        return Err(StoreError::Exists(group));
    }
    write(&mut *tx, group, options).await?;
    keys::insert_api_key(&mut tx, secrets, group, api_key).await?;
    if let Some(jwt) = jwt {
        keys::insert_jwt_secret(&mut tx, secrets, group, jwt).await?;
    }
    tx.commit().await?;
    Ok(())
}
