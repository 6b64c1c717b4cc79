//! Resealing the groups' keys under the first key, so that an old key can be removed from `SECRETS_KEY`.
//!
//! Safe beside running workers, beside another reseal, and after one that was killed: a row is replaced only if it still has
//! the value that was opened, and the new value opens to the same secret.

use crate::{
    group_id::GroupId,
    seal::{Purpose, SealedBy, SecretsKey},
};
use secrecy::SecretString;
use sqlx::PgPool;
use std::collections::BTreeSet;

/// Rows in one statement.
const BATCH: i64 = 500;

/// How many values each key of `SECRETS_KEY` sealed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct SealTally {
    /// By the first key.
    pub first: u64,
    /// By an older key of `SECRETS_KEY`.
    pub older: u64,
    /// By a key that `SECRETS_KEY` lacks; API keys and JWT secrets that are in use.
    pub lost: u64,
    /// The same for those that were revoked, which are not needed any more.
    pub lost_revoked: u64,
    /// The groups of the lost keys that are in use.
    pub groups: BTreeSet<i64>,
}

/// A stored key or secret.
struct SealedRow {
    id: i64,
    group_id: i64,
    sealed: Vec<u8>,
    revoked: bool,
}

/// Counts all API keys and JWT secrets, the revoked ones too.
pub(crate) async fn tally(pool: &PgPool, secrets: &SecretsKey) -> Result<SealTally, sqlx::Error> {
    let mut tally = SealTally::default();
    for purpose in [Purpose::ApiKey, Purpose::JwtSecret] {
        let mut after = 0;
        loop {
            let rows = page(pool, purpose, after).await?;
            let Some(last) = rows.last() else { break };
            after = last.id;
            for row in &rows {
                tally.count(row, open(secrets, purpose, row).map(|(by, _)| by));
            }
        }
    }
    Ok(tally)
}

/// Seals each value that an older key opens under the first key. `done` gets the number of rows that were read so far. Returns
/// how many values were resealed.
pub(crate) async fn reseal(
    pool: &PgPool,
    secrets: &SecretsKey,
    mut done: impl FnMut(u64),
) -> Result<u64, sqlx::Error> {
    let (mut looked_at, mut sealed) = (0, 0);
    for purpose in [Purpose::ApiKey, Purpose::JwtSecret] {
        let mut after = 0;
        loop {
            let rows = page(pool, purpose, after).await?;
            let Some(last) = rows.last() else { break };
            after = last.id;
            looked_at += rows.len() as u64;
            sealed += replace(pool, secrets, purpose, rows).await?;
            done(looked_at);
        }
    }
    Ok(sealed)
}

async fn replace(
    pool: &PgPool,
    secrets: &SecretsKey,
    purpose: Purpose,
    rows: Vec<SealedRow>,
) -> Result<u64, sqlx::Error> {
    let (mut ids, mut old, mut new) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let Some((SealedBy::Older, secret)) = open(secrets, purpose, &row) else { continue };
        let Some(group) = GroupId::new(row.group_id) else { continue };
        new.push(secrets.seal(group, purpose, &secret));
        ids.push(row.id);
        old.push(row.sealed);
    }
    if ids.is_empty() {
        return Ok(0);
    }
    let replaced = match purpose {
        Purpose::ApiKey => sqlx::query!(
            "update group_api_keys k set sealed = n.new
               from unnest($1::bigint[], $2::bytea[], $3::bytea[]) as n (id, old, new)
              where k.id = n.id and k.sealed = n.old",
            &ids,
            &old,
            &new
        ),
        Purpose::JwtSecret => sqlx::query!(
            "update group_jwt_secrets k set sealed = n.new
               from unnest($1::bigint[], $2::bytea[], $3::bytea[]) as n (id, old, new)
              where k.id = n.id and k.sealed = n.old",
            &ids,
            &old,
            &new
        ),
    };
    Ok(replaced.execute(pool).await?.rows_affected())
}

async fn page(pool: &PgPool, purpose: Purpose, after: i64) -> Result<Vec<SealedRow>, sqlx::Error> {
    match purpose {
        Purpose::ApiKey => {
            sqlx::query_as!(
                SealedRow,
                r#"select id, group_id, sealed, revoked_at is not null as "revoked!" from group_api_keys
                    where id > $1 order by id limit $2"#,
                after,
                BATCH
            )
            .fetch_all(pool)
            .await
        }
        Purpose::JwtSecret => {
            sqlx::query_as!(
                SealedRow,
                r#"select id, group_id, sealed, revoked_at is not null as "revoked!" from group_jwt_secrets
                    where id > $1 order by id limit $2"#,
                after,
                BATCH
            )
            .fetch_all(pool)
            .await
        }
    }
}

fn open(secrets: &SecretsKey, purpose: Purpose, row: &SealedRow) -> Option<(SealedBy, SecretString)> {
    let opened = secrets.open_by(GroupId::new(row.group_id)?, purpose, &row.sealed).ok()?;
    Some((opened.by, opened.secret))
}

impl SealTally {
    fn count(&mut self, row: &SealedRow, by: Option<SealedBy>) {
        match by {
            Some(SealedBy::First) => self.first += 1,
            Some(SealedBy::Older) => self.older += 1,
            None if row.revoked => self.lost_revoked += 1,
            None => {
                self.lost += 1;
                self.groups.insert(row.group_id);
            }
        }
    }
}
