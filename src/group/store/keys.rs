//! Groups' API keys and JWT secrets, sealed.
//!
//! An API key belongs to one group: a login key's signature joins group and user with nothing between, so that with one
//! key, group 7's user `21` would sign what group 72's user `1` does. A JWT names its group in a claim of its own, and
//! a secret may be shared.

use super::{error::StoreError, groups::show};
use crate::masked::debug_shows;
use crate::{
    db,
    group_id::GroupId,
    hmac_key::HmacKey,
    seal::{Purpose, SecretsKey},
};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{PgConnection, PgExecutor, PgPool};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;

/// Held while a key is compared with those in use, so that two commands cannot add the same one; any constant will do.
const API_KEYS_LOCK: i64 = 0x7365_7373_6b65_7973;

/// A JWT secret to add.
#[derive(Debug)]
pub struct NewSecret {
    pub kid: Option<String>,
    pub secret: SecretString,
}

/// What to do with the active keys when another is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old {
    Keep,
    Revoke,
}

/// An active key or secret as it is stored.
pub struct Sealed {
    pub id: i64,
    pub group_id: i64,
    /// Of JWT secrets only.
    pub kid: Option<String>,
    pub sealed: Vec<u8>,
    pub created_at: OffsetDateTime,
}

debug_shows!(Sealed { id, group_id });

/// Adds an API key to a group, and revokes its others or keeps them.
pub async fn rotate_api_key(
    pool: &PgPool,
    secrets: &SecretsKey,
    group: GroupId,
    api_key: &SecretString,
    old: Old,
) -> Result<(), StoreError> {
    let mut tx = db::begin(pool).await?;
    lock(&mut tx).await?;
    show(&mut *tx, group).await?;
    let id = insert_api_key(&mut tx, secrets, group, api_key).await?;
    if old == Old::Revoke {
        sqlx::query!(
            "update group_api_keys set revoked_at = now() where group_id = $1 and id <> $2 and revoked_at is null",
            group.get(),
            id
        )
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Adds a JWT secret to a group, and revokes its others or keeps them.
pub async fn rotate_jwt_secret(
    pool: &PgPool,
    secrets: &SecretsKey,
    group: GroupId,
    jwt: &NewSecret,
    old: Old,
) -> Result<(), StoreError> {
    let mut tx = db::begin(pool).await?;
    show(&mut *tx, group).await?;
    if old == Old::Revoke {
        // Before the new one, which may take a revoked one's kid.
        sqlx::query!(
            "update group_jwt_secrets set revoked_at = now() where group_id = $1 and revoked_at is null",
            group.get()
        )
        .execute(&mut *tx)
        .await?;
    }
    insert_jwt_secret(&mut tx, secrets, group, jwt).await?;
    tx.commit().await?;
    Ok(())
}

/// Revokes all of a group's API keys and JWT secrets but the newest of each; says how many.
pub async fn revoke_old(pool: &PgPool, group: GroupId) -> Result<u64, StoreError> {
    let mut tx = db::begin(pool).await?;
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
    tx.commit().await?;
    Ok(keys.rows_affected() + jwts.rows_affected())
}

/// The active API keys, of one group or of all, oldest first.
pub async fn active_api_keys(
    db: impl PgExecutor<'_>,
    group: Option<GroupId>,
) -> Result<Vec<Sealed>, sqlx::Error> {
    sqlx::query_as!(
        Sealed,
        r#"select id, group_id, null::text as kid, sealed, created_at from group_api_keys
            where revoked_at is null and ($1::bigint is null or group_id = $1) order by id"#,
        group.map(GroupId::get)
    )
    .fetch_all(db)
    .await
}

/// The active JWT secrets, of one group or of all, oldest first.
pub async fn active_jwt_secrets(
    db: impl PgExecutor<'_>,
    group: Option<GroupId>,
) -> Result<Vec<Sealed>, sqlx::Error> {
    sqlx::query_as!(
        Sealed,
        "select id, group_id, kid, sealed, created_at from group_jwt_secrets
          where revoked_at is null and ($1::bigint is null or group_id = $1) order by id",
        group.map(GroupId::get)
    )
    .fetch_all(db)
    .await
}

/// Lets one transaction at a time compare and add API keys. Taken before anything is written: each write locks the
/// row of `settings_version`, and two transactions that took the two locks in turn would wait for each other.
pub(super) async fn lock(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("select pg_advisory_xact_lock($1)", API_KEYS_LOCK).execute(tx).await?;
    Ok(())
}

/// Under the [`lock`].
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

/// The group whose key it is. Keys are opened and compared, since a stored hash would give a guessable key away.
fn owner(keys: Vec<Sealed>, secrets: &SecretsKey, wanted: &SecretString) -> Option<GroupId> {
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

/// What HMAC makes of a key. Two keys may be one for it: it pads a key with U+0000, and hashes one over 64 bytes.
fn fingerprint(key: &SecretString) -> [u8; 32] {
    HmacKey::from_secret(key.expose_secret().as_bytes()).mac(&[b"which key is this?"])
}

pub(super) async fn insert_jwt_secret(
    tx: &mut PgConnection,
    secrets: &SecretsKey,
    group: GroupId,
    jwt: &NewSecret,
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
