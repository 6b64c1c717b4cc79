//! The key that numbers are hashed under: random, made once for each database, and sealed with `SECRETS_KEY`.

use crate::{
    db::StatementError,
    hmac_key::HmacKey,
    seal::{SealedBy, SecretsKey, SharedPurpose},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;

/// Why the opt-outs cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OptOutsError {
    #[error(
        "SECRETS_KEY does not open the key of the opt-outs (table optout_key): set the one that sealed it, after a comma \
         if it is an old one; if that is lost, so are the opt-outs (docs/LIMITS.md)"
    )]
    WrongSecretsKey,
    #[error("the opt-outs cannot be read: {}", .0.summary())]
    Database(#[from] sqlx::Error),
}

impl StatementError for OptOutsError {
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

/// Reads the key, or makes it. If several processes make one at once, the first is stored, and all use that one.
pub(super) async fn read_or_make(pool: &PgPool, secrets: &SecretsKey) -> Result<HmacKey, OptOutsError> {
    let sealed = if let Some(sealed) = read(pool).await? {
        sealed
    } else {
        let made = SecretString::from(BASE64_STANDARD.encode(rand::random::<[u8; 32]>()));
        sqlx::query!(
            "insert into optout_key (sealed) values ($1) on conflict do nothing",
            secrets.seal_shared(SharedPurpose::OptoutKey, &made)
        )
        .execute(pool)
        .await?;
        read(pool).await?.ok_or(sqlx::Error::RowNotFound)?
    };
    open(&sealed, secrets)
}

/// Reads the key; `None` if no process has made it yet.
pub(super) async fn read_made(pool: &PgPool, secrets: &SecretsKey) -> Result<Option<HmacKey>, OptOutsError> {
    read(pool).await?.map(|sealed| open(&sealed, secrets)).transpose()
}

fn open(sealed: &[u8], secrets: &SecretsKey) -> Result<HmacKey, OptOutsError> {
    let opened =
        secrets.open_shared(SharedPurpose::OptoutKey, sealed).ok_or(OptOutsError::WrongSecretsKey)?;
    Ok(HmacKey::from_secret(opened.secret.expose_secret().as_bytes()))
}

/// Which key of `SECRETS_KEY` sealed it; `None` if it does not exist yet.
pub(super) async fn sealed_by(pool: &PgPool, secrets: &SecretsKey) -> Result<Option<SealedBy>, OptOutsError> {
    let Some(sealed) = read(pool).await? else { return Ok(None) };
    match secrets.open_shared(SharedPurpose::OptoutKey, &sealed) {
        Some(opened) => Ok(Some(opened.by)),
        None => Err(OptOutsError::WrongSecretsKey),
    }
}

/// Seals it under the first key, if an older one opens it and no other process was faster. Returns whether it did. A process
/// does not do this when it starts: those that only have the older key could not open it any more.
pub(super) async fn reseal(pool: &PgPool, secrets: &SecretsKey) -> Result<bool, sqlx::Error> {
    let Some(sealed) = read(pool).await? else { return Ok(false) };
    let opened = secrets.open_shared(SharedPurpose::OptoutKey, &sealed);
    let Some(opened) = opened.filter(|opened| opened.by == SealedBy::Older) else { return Ok(false) };
    let replaced = sqlx::query!(
        "update optout_key set sealed = $2 where sealed = $1",
        sealed,
        secrets.seal_shared(SharedPurpose::OptoutKey, &opened.secret)
    )
    .execute(pool)
    .await?;
    Ok(replaced.rows_affected() > 0)
}

async fn read(pool: &PgPool) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar!("select sealed from optout_key").fetch_optional(pool).await
}
