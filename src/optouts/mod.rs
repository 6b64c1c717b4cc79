//! Who wants no texts, by whom they would come from: the table `optouts`, as verbs (docs/LIMITS.md).
//!
//! No number stands in it. A number has few enough digits to try them all, so it is hashed under a key, and that is sealed.

mod key;
mod keyword;

pub use key::Unusable;
pub use keyword::{Keyword, keyword};

use crate::{credential::HmacKey, group::seal::SecretsKey};
use serde::Serialize;
use sqlx::PgPool;
use time::OffsetDateTime;

/// The sender of an opt-out from any sender's texts.
pub const ANY_SENDER: &str = "*";
/// Rows in one statement of an import.
const BATCH: usize = 1_000;

/// How an opt-out is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// A STOP, under the provider's id of that message.
    Inbound { provider_message_id: &'a str },
    /// The provider refused a text for it.
    Provider,
    /// `session-invite optouts add`.
    Command,
    /// `session-invite optouts import`.
    Import,
}

impl Source<'_> {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inbound { .. } => "inbound",
            Self::Provider => "provider",
            Self::Command => "command",
            Self::Import => "import",
        }
    }
}

/// The list of opt-outs.
#[derive(Debug, Clone)]
pub struct OptOuts {
    pool: PgPool,
    key: HmacKey,
}

/// An opt-out as a list shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    pub sender: String,
    /// Of the number.
    pub last_digits: String,
    pub source: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Whether `SECRETS_KEY` opens the key of the opt-outs, or there is none yet. It changes nothing.
pub async fn is_readable(pool: &PgPool, secrets: &SecretsKey) -> Result<(), Unusable> {
    key::is_readable(pool, secrets).await
}

impl OptOuts {
    /// Reads the key that numbers are hashed under, or makes it, once for a database.
    pub async fn open(pool: PgPool, secrets: &SecretsKey) -> Result<Self, Unusable> {
        let key = key::read_or_make(&pool, secrets).await?;
        Ok(Self { pool, key })
    }

    /// What stands for a number (E.164) in the table.
    pub fn hash(&self, phone: &str) -> [u8; 32] {
        self.key.mac(&[phone.as_bytes()])
    }

    /// The key that numbers are hashed under, for what else stands for a person.
    pub fn key(&self) -> HmacKey {
        self.key.clone()
    }

    /// No more texts from this sender to this number; answers whether that is new.
    pub async fn record(&self, sender: &str, phone: &str, source: Source<'_>) -> Result<bool, sqlx::Error> {
        let hash = self.hash(phone);
        let provider_message_id = match source {
            Source::Inbound { provider_message_id } => Some(provider_message_id),
            _ => None,
        };
        let added = sqlx::query!(
            "insert into optouts (phone_hash, sender, last_digits, source, provider_message_id)
             values ($1, $2, $3, $4, $5) on conflict do nothing",
            hash.as_slice(),
            sender,
            last_digits(phone),
            source.as_str(),
            provider_message_id,
        )
        .execute(&self.pool)
        .await?;
        Ok(added.rows_affected() > 0)
    }

    /// Texts from this sender again; answers whether there was an opt-out.
    pub async fn remove(&self, sender: &str, phone: &str) -> Result<bool, sqlx::Error> {
        let hash = self.hash(phone);
        let removed = sqlx::query!(
            "delete from optouts where phone_hash = $1 and sender = $2",
            hash.as_slice(),
            sender
        )
        .execute(&self.pool)
        .await?;
        Ok(removed.rows_affected() > 0)
    }

    /// Records many, each a sender and a number, all of them or none; `told` hears now and then how many are done.
    /// Answers how many are new.
    pub async fn import(
        &self,
        all: &[(String, String)],
        mut told: impl FnMut(usize),
    ) -> Result<u64, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let (mut new, mut done) = (0, 0);
        for part in all.chunks(BATCH) {
            let hashes: Vec<_> = part.iter().map(|(_, phone)| self.hash(phone)).collect();
            let added = sqlx::query!(
                r#"
                insert into optouts (phone_hash, sender, last_digits, source)
                select o.hash, o.sender, o.last_digits, $4
                  from unnest($1::bytea[], $2::text[], $3::text[]) as o (hash, sender, last_digits)
                on conflict do nothing
                "#,
                &hashes.iter().map(<[u8; 32]>::as_slice).collect::<Vec<_>>() as &[&[u8]],
                &part.iter().map(|(sender, _)| sender.as_str()).collect::<Vec<_>>() as &[&str],
                &part.iter().map(|(_, phone)| last_digits(phone)).collect::<Vec<_>>() as &[&str],
                Source::Import.as_str(),
            )
            .execute(&mut *transaction)
            .await?;
            new += added.rows_affected();
            done += part.len();
            told(done);
        }
        transaction.commit().await?;
        Ok(new)
    }
}

/// The newest first, of one sender or of all. It needs no key.
pub async fn list(pool: &PgPool, sender: Option<&str>, limit: i64) -> Result<Vec<Listed>, sqlx::Error> {
    sqlx::query_as!(
        Listed,
        "select sender, last_digits, source, created_at from optouts
          where $1::text is null or sender = $1
          order by created_at desc, phone_hash desc, sender desc limit $2",
        sender,
        limit,
    )
    .fetch_all(pool)
    .await
}

/// The last two, or fewer of what is too short to be a number.
fn last_digits(phone: &str) -> &str {
    let last = phone.len().saturating_sub(2);
    let digits = phone.get(last..).unwrap_or_default();
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits } else { "" }
}

#[cfg(test)]
mod tests;
