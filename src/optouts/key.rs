//! The key that numbers are hashed under: random, made once for a database, and sealed with `SECRETS_KEY`.

use crate::{
    db::Passing,
    hmac_key::HmacKey,
    seal::{SealedBy, SecretsKey, Shared},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;

/// The list of opt-outs cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error(
        "SECRETS_KEY does not open the key of the opt-outs (table optout_key): set the one that sealed it, after a comma \
         if it is an old one; if that is lost, so are the opt-outs (docs/LIMITS.md)"
    )]
    WrongSecretsKey,
    #[error("the opt-outs cannot be read: {}", .0.summary())]
    Database(#[from] sqlx::Error),
}

impl Passing for Unusable {
    fn database_error(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            Self::WrongSecretsKey => None,
        }
    }

    fn summary(&self) -> String {
        self.to_string()
    }
}

/// Of several who make one at once, one is first, and the others take its.
pub(super) async fn read_or_make(pool: &PgPool, secrets: &SecretsKey) -> Result<HmacKey, Unusable> {
    let sealed = if let Some(sealed) = read(pool).await? {
        sealed
    } else {
        let made = SecretString::from(BASE64_STANDARD.encode(rand::random::<[u8; 32]>()));
        sqlx::query!(
            "insert into optout_key (sealed) values ($1) on conflict do nothing",
            secrets.seal_shared(Shared::OptoutKey, &made)
        )
        .execute(pool)
        .await?;
        read(pool).await?.ok_or(sqlx::Error::RowNotFound)?
    };
    let opened = secrets.open_shared(Shared::OptoutKey, &sealed).ok_or(Unusable::WrongSecretsKey)?;
    Ok(HmacKey::from_secret(opened.secret.expose_secret().as_bytes()))
}

/// Which key sealed it; `None` if there is none yet.
pub(super) async fn sealed_by(pool: &PgPool, secrets: &SecretsKey) -> Result<Option<SealedBy>, Unusable> {
    let Some(sealed) = read(pool).await? else { return Ok(None) };
    match secrets.open_shared(Shared::OptoutKey, &sealed) {
        Some(opened) => Ok(Some(opened.by)),
        None => Err(Unusable::WrongSecretsKey),
    }
}

/// Seals it under the first key, if an older one opens it and no other process did meanwhile; answers whether it did. Not
/// done at a start: processes that have the older key alone would not open it any more.
pub(super) async fn reseal(pool: &PgPool, secrets: &SecretsKey) -> Result<bool, sqlx::Error> {
    let Some(sealed) = read(pool).await? else { return Ok(false) };
    let opened = secrets.open_shared(Shared::OptoutKey, &sealed);
    let Some(opened) = opened.filter(|opened| opened.by == SealedBy::Older) else { return Ok(false) };
    let replaced = sqlx::query!(
        "update optout_key set sealed = $2 where sealed = $1",
        sealed,
        secrets.seal_shared(Shared::OptoutKey, &opened.secret)
    )
    .execute(pool)
    .await?;
    Ok(replaced.rows_affected() > 0)
}

async fn read(pool: &PgPool) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar!("select sealed from optout_key").fetch_optional(pool).await
}
