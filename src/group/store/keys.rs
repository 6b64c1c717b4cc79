//! Groups' API keys and JWT secrets, sealed.
//!
//! An API key belongs to one group. A login key's signature joins group and user without a separator: with one key, user `21`
//! of group 7 would sign the same bytes as user `1` of group 72. A JWT names its group in a claim of its own, so that groups
//! may share a secret.

use super::{
    error::StoreError,
    groups::{change, show},
};
use crate::{
    audit::Operator,
    group_id::GroupId,
    hmac_key::HmacKey,
    masked::debug_shows,
    seal::{Purpose, SecretsKey},
};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{PgConnection, PgExecutor};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;

/// The advisory lock during the comparison of a key with those in use, so that two commands cannot add the same key. The
/// number is arbitrary.
const API_KEYS_LOCK: i64 = 0x7365_7373_6b65_7973;

/// A JWT secret to add.
#[derive(Debug)]
pub(crate) struct NewJwtSecret {
    pub kid: Option<String>,
    pub secret: SecretString,
}

/// What to do with the active keys when another is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldKeys {
    Keep,
    Revoke,
}

/// An active key or secret as it is stored.
pub(crate) struct SealedKey {
    pub id: i64,
    pub group_id: i64,
    /// JWT secrets only.
    pub kid: Option<String>,
    pub sealed: Vec<u8>,
    pub created_at: OffsetDateTime,
}

debug_shows!(SealedKey { id, group_id });

/// Adds an API key to a group, and revokes its others or keeps them.
pub(crate) async fn rotate_api_key(
    operator: &Operator,
    secrets: &SecretsKey,
    group: GroupId,
    api_key: &SecretString,
    old: OldKeys,
) -> Result<(), StoreError> {
    change(operator, group, async |tx| {
        lock(tx).await?;
        show(&mut *tx, group).await?;
        let id = insert_api_key(tx, secrets, group, api_key).await?;
        if old == OldKeys::Revoke {
            sqlx::query!(
                "update group_api_keys set revoked_at = now() where group_id = $1 and id <> $2 and revoked_at is null",
                group.get(),
                id
            )
            .execute(tx)
            .await?;
        }
        Ok(())
    })
    .await
}

/// Adds a JWT secret to a group, and revokes its others or keeps them.
pub(crate) async fn rotate_jwt_secret(
    operator: &Operator,
    secrets: &SecretsKey,
    group: GroupId,
    jwt: &NewJwtSecret,
    old: OldKeys,
) -> Result<(), StoreError> {
    change(operator, group, async |tx| {
        show(&mut *tx, group).await?;
        if old == OldKeys::Revoke {
            // Before the insert, as the new secret may have the kid of a revoked one.
            sqlx::query!(
                "update group_jwt_secrets set revoked_at = now() where group_id = $1 and revoked_at is null",
                group.get()
            )
            .execute(&mut *tx)
            .await?;
        }
        insert_jwt_secret(tx, secrets, group, jwt).await
    })
    .await
}

/// Revokes all of a group's API keys and JWT secrets but the newest of each. Returns how many.
pub(crate) async fn revoke_old(operator: &Operator, group: GroupId) -> Result<u64, StoreError> {
    change(operator, group, async |tx| {
        show(&mut *tx, group).await?;
        let keys = sqlx::query!(
            "update group_api_keys set revoked_at = now()
              where group_id = $1 and revoked_at is null
                and id < (select max(id) from group_api_keys where group_id = $1 and revoked_at is null)",
            group.get()
        )
        .execute(&mut *tx)
        .await?;
        let jwts = sqlx::query!(
            "update group_jwt_secrets set revoked_at = now()
              where group_id = $1 and revoked_at is null
                and id < (select max(id) from group_jwt_secrets where group_id = $1 and revoked_at is null)",
            group.get()
        )
        .execute(&mut *tx)
        .await?;
        Ok(keys.rows_affected() + jwts.rows_affected())
    })
    .await
}

/// The active API keys, of one group or of all, oldest first.
pub(crate) async fn active_api_keys(
    db: impl PgExecutor<'_>,
    group: Option<GroupId>,
) -> Result<Vec<SealedKey>, sqlx::Error> {
    sqlx::query_as!(
        SealedKey,
        r#"select id, group_id, null::text as kid, sealed, created_at from group_api_keys
            where revoked_at is null and ($1::bigint is null or group_id = $1) order by id"#,
        group.map(GroupId::get)
    )
    .fetch_all(db)
    .await
}

/// The active JWT secrets, of one group or of all, oldest first.
pub(crate) async fn active_jwt_secrets(
    db: impl PgExecutor<'_>,
    group: Option<GroupId>,
) -> Result<Vec<SealedKey>, sqlx::Error> {
    sqlx::query_as!(
        SealedKey,
        "select id, group_id, kid, sealed, created_at from group_jwt_secrets
          where revoked_at is null and ($1::bigint is null or group_id = $1) order by id",
        group.map(GroupId::get)
    )
    .fetch_all(db)
    .await
}

/// Lets one transaction at a time compare and add API keys. It is taken before any write: each write locks the row of
/// `settings_version`, and two transactions that take the two locks in different order would wait for each other.
pub(super) async fn lock(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("select pg_advisory_xact_lock($1)", API_KEYS_LOCK).execute(tx).await?;
    Ok(())
}

/// Inserts an API key. The transaction must have taken the [`lock`].
pub(super) async fn insert_api_key(
    tx: &mut PgConnection,
    secrets: &SecretsKey,
    group: GroupId,
    api_key: &SecretString,
) -> Result<i64, StoreError> {
    if let Some(owner) = owner(active_api_keys(&mut *tx, None).await?, secrets, api_key) {
        return Err(StoreError::KeyInUse(owner));
    }
    let id = sqlx::query_scalar!(
        "insert into group_api_keys (group_id, sealed) values ($1, $2) returning id",
        group.get(),
        secrets.seal(group, Purpose::ApiKey, api_key)
    )
    .fetch_one(&mut *tx)
    .await?;
    Ok(id)
}

/// The group that uses the key already. Stored keys are opened and compared: a stored hash would give a guessable key away.
fn owner(keys: Vec<SealedKey>, secrets: &SecretsKey, wanted: &SecretString) -> Option<GroupId> {
    let wanted = fingerprint(wanted);
    let mut owner = None;
    for key in keys {
        let Some(group) = GroupId::new(key.group_id) else { continue };
        match secrets.open(group, Purpose::ApiKey, &key.sealed) {
            Ok(open) if bool::from(fingerprint(&open).ct_eq(&wanted)) => owner = Some(group),
            Ok(_) => {}
            Err(error) => tracing::warn!(key = key.id, "{error}; the new key was not compared with it"),
        }
    }
    owner
}

/// An HMAC with the key. Two keys may be equal for HMAC: it pads a key with zero bytes, and hashes one over 64 bytes.
fn fingerprint(key: &SecretString) -> [u8; 32] {
    HmacKey::from_secret(key.expose_secret().as_bytes()).mac(&[b"which key is this?"])
}

pub(super) async fn insert_jwt_secret(
    tx: &mut PgConnection,
    secrets: &SecretsKey,
    group: GroupId,
    jwt: &NewJwtSecret,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into group_jwt_secrets (group_id, kid, sealed) values ($1, $2, $3)",
        group.get(),
        jwt.kid,
        secrets.seal(group, Purpose::JwtSecret, &jwt.secret)
    )
    .execute(tx)
    .await
    .map_err(|error| match (&error, &jwt.kid) {
        (sqlx::Error::Database(inner), Some(kid))
            if inner.constraint() == Some("group_jwt_secrets_active_kid") =>
        {
            StoreError::KidInUse(group, kid.clone())
        }
        _ => error.into(),
    })?;
    Ok(())
}
