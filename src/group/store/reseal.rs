//! Sealing the groups' keys anew, so that an old `SECRETS_KEY` can be taken away.
//!
//! Safe beside running workers, beside another such run, and after one that was killed: each row is replaced only while it
//! holds what was opened, and says the same afterwards.

use crate::{
    group_id::GroupId,
    seal::{Purpose, SealedBy, SecretsKey},
};
use secrecy::SecretString;
use sqlx::PgPool;
use std::collections::BTreeSet;

/// Rows in one statement.
const BATCH: i64 = 500;

/// How many values are sealed by what.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// By the first key.
    pub first: u64,
    /// By an older one that `SECRETS_KEY` holds.
    pub older: u64,
    /// By one that it does not hold, of keys that are still in use.
    pub lost: u64,
    /// The same of keys that were revoked, which nobody needs.
    pub lost_revoked: u64,
    /// Whose keys in use are lost.
    pub groups: BTreeSet<i64>,
}

/// A stored key or secret.
struct Row {
    id: i64,
    group_id: i64,
    sealed: Vec<u8>,
    revoked: bool,
}

/// Counts all API keys and JWT secrets, the revoked ones too.
pub async fn tally(pool: &PgPool, secrets: &SecretsKey) -> Result<Tally, sqlx::Error> {
    let mut tally = Tally::default();
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

/// Seals under the first key what an older one opens; `done` hears how many rows were looked at. Answers how many were sealed.
pub async fn reseal(
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
    rows: Vec<Row>,
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

async fn page(pool: &PgPool, purpose: Purpose, after: i64) -> Result<Vec<Row>, sqlx::Error> {
    match purpose {
        Purpose::ApiKey => {
            sqlx::query_as!(
                Row,
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
                Row,
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

fn open(secrets: &SecretsKey, purpose: Purpose, row: &Row) -> Option<(SealedBy, SecretString)> {
    let opened = secrets.open_by(GroupId::new(row.group_id)?, purpose, &row.sealed).ok()?;
    Some((opened.by, opened.secret))
}

impl Tally {
    fn count(&mut self, row: &Row, by: Option<SealedBy>) {
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
