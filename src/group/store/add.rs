//! Adding a group.

use super::{
    error::StoreError,
    groups::{change, write},
    keys::{self, NewJwtSecret},
};
use crate::{audit::Operator, group::options::GroupOptions, group_id::GroupId, seal::SecretsKey};
use secrecy::SecretString;

/// Adds a group with its first API key, and with a JWT secret if one is given.
pub(crate) async fn add(
    operator: &Operator,
    secrets: &SecretsKey,
    group: GroupId,
    options: &GroupOptions,
    api_key: &SecretString,
    jwt: Option<&NewJwtSecret>,
) -> Result<(), StoreError> {
    change(operator, group, async |tx| {
        keys::lock(tx).await?;
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
        keys::insert_api_key(tx, secrets, group, api_key).await?;
        if let Some(jwt) = jwt {
            keys::insert_jwt_secret(tx, secrets, group, jwt).await?;
        }
        Ok(())
    })
    .await
}
