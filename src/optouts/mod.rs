//! Who wants no texts, by whom they would come from: the table `optouts`, as verbs (docs/LIMITS.md).
//!
//! No number stands in it. A number has few enough digits to try them all, so it is hashed under a key, and that is sealed.

mod key;
mod keyword;

pub use key::Unusable;
pub use keyword::{Keyword, keyword};

use crate::masked::debug_shows;
use crate::{
    db::{self, Patience, kinds, repeat},
    hmac_key::HmacKey,
    phone::{self, PhoneNumber},
    seal::{SealedBy, SecretsKey},
};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use time::OffsetDateTime;

/// The sender of an opt-out from any sender's texts.
pub const ANY_SENDER: &str = "*";
/// Rows in one statement of an import.
const BATCH: usize = 1_000;
/// A STOP or START that comes again within this changes nothing (contract, section 13).
const REPEATS_FOR: Duration = Duration::from_hours(30 * 24);

/// How an opt-out is known, but for a STOP of the visitor's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The provider refused a text for it.
    Provider,
    /// `session-invite optouts add`.
    Command,
    /// `session-invite optouts import`.
    Import,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Command => "command",
            Self::Import => "import",
        }
    }
}

/// A text from a visitor, as the provider tells of it.
#[derive(Clone, Copy)]
pub struct Inbound<'a> {
    /// The provider's id of it.
    pub message_sid: &'a str,
    /// The visitor's number (E.164).
    pub from: &'a str,
    /// Whom the visitor has answered: a number, and perhaps the messaging service that it is of.
    pub senders: &'a [&'a str],
}

/// Without the number.
impl std::fmt::Debug for Inbound<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("message_sid", &self.message_sid).finish_non_exhaustive()
    }
}

/// What stands for a number in the table: its hash, and the hash of the other way in which its country writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashes {
    pub own: [u8; 32],
    pub twin: Option<[u8; 32]>,
}

impl Hashes {
    /// Each of them, as a statement takes them.
    pub fn all(&self) -> Vec<&[u8]> {
        std::iter::once(&self.own).chain(&self.twin).map(<[u8; 32]>::as_slice).collect()
    }

    fn twin(&self) -> Option<&[u8]> {
        self.twin.as_ref().map(<[u8; 32]>::as_slice)
    }
}

/// The list of opt-outs.
#[derive(Debug, Clone)]
pub struct OptOuts {
    pool: PgPool,
    key: HmacKey,
}

/// An opt-out as a list shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    pub sender: String,
    /// Of the number.
    pub last_digits: String,
    pub source: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

debug_shows!(Listed { sender, source });

/// Which key of `SECRETS_KEY` sealed the key of the opt-outs, or `None` where there is none yet. It changes nothing.
pub async fn sealed_by(pool: &PgPool, secrets: &SecretsKey) -> Result<Option<SealedBy>, Unusable> {
    key::sealed_by(pool, secrets).await
}

/// Seals the key of the opt-outs under the first key; answers whether an older one had sealed it.
pub async fn reseal(pool: &PgPool, secrets: &SecretsKey) -> Result<bool, sqlx::Error> {
    key::reseal(pool, secrets).await
}

impl OptOuts {
    /// Reads the key that numbers are hashed under, or makes it, once for a database.
    pub async fn open(pool: PgPool, secrets: &SecretsKey) -> Result<Self, Unusable> {
        let key = key::read_or_make(&pool, secrets).await?;
        Ok(Self { pool, key })
    }

    /// What stands for a number in the table.
    pub fn hashes(&self, phone: &PhoneNumber) -> Hashes {
        self.hashes_of(phone.as_e164())
    }

    /// The same for what the provider calls a visitor, which may be a name.
    fn hashes_of(&self, phone: &str) -> Hashes {
        Hashes { own: self.hash(phone), twin: phone::twin(phone).map(|twin| self.hash(&twin)) }
    }

    fn hash(&self, phone: &str) -> [u8; 32] {
        self.key.mac(&[phone.as_bytes()])
    }

    /// The key that numbers are hashed under, for what else stands for a person.
    pub fn key(&self) -> HmacKey {
        self.key.clone()
    }

    /// No more texts from this sender to this number; answers whether that is new.
    pub async fn record(&self, sender: &str, phone: &str, source: Source) -> Result<bool, sqlx::Error> {
        repeat(&kinds::OPT_OUT, Patience::Brief, || self.insert(sender, phone, source)).await
    }

    async fn insert(&self, sender: &str, phone: &str, source: Source) -> Result<bool, sqlx::Error> {
        let hashes = self.hashes_of(phone);
        let added = sqlx::query!(
            "insert into optouts (phone_hash, sender, last_digits, source)
             select $1, $2, $3, $4
              where not exists (select from optouts o where o.phone_hash = $5 and o.sender = $2)
             on conflict do nothing",
            hashes.own.as_slice(),
            sender,
            last_digits(phone),
            source.as_str(),
            hashes.twin(),
        )
        .execute(&self.pool)
        .await?;
        Ok(added.rows_affected() > 0)
    }

    /// Texts from this sender again; answers whether there was an opt-out.
    pub async fn remove(&self, sender: &str, phone: &str) -> Result<bool, sqlx::Error> {
        let hashes = self.hashes_of(phone);
        let removed = sqlx::query!(
            "delete from optouts where phone_hash = any($1) and sender = $2",
            &hashes.all() as &[&[u8]],
            sender
        )
        .execute(&self.pool)
        .await?;
        Ok(removed.rows_affected() > 0)
    }

    /// A visitor's STOP. One that was obeyed already changes nothing, whatever came since; so it is safe to repeat.
    ///
    /// The provider does not send it again: the caller bounds how long it is tried.
    pub async fn stop(&self, text: Inbound<'_>) -> Result<(), sqlx::Error> {
        repeat(&kinds::OPT_OUT, Patience::Long, || self.obey_stop(text)).await
    }

    async fn obey_stop(&self, text: Inbound<'_>) -> Result<(), sqlx::Error> {
        let hashes = self.hashes_of(text.from);
        sqlx::query!(
            r#"
            with first as (
                insert into inbound_texts as i (message_sid) values ($1)
                on conflict (message_sid) do update set received_at = now()
                    where i.received_at < now() - make_interval(secs => $2)
                returning message_sid
            )
            insert into optouts (phone_hash, sender, last_digits, source, provider_message_id)
            select $3, s.sender, $4, 'inbound', first.message_sid
              from first cross join unnest($5::text[]) as s (sender)
             where not exists (select from optouts o where o.phone_hash = $6 and o.sender = s.sender)
            on conflict do nothing
            "#,
            text.message_sid,
            REPEATS_FOR.as_secs_f64(),
            hashes.own.as_slice(),
            last_digits(text.from),
            text.senders as &[&str],
            hashes.twin(),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A visitor's START, likewise.
    pub async fn start(&self, text: Inbound<'_>) -> Result<(), sqlx::Error> {
        repeat(&kinds::OPT_IN, Patience::Long, || self.obey_start(text)).await
    }

    async fn obey_start(&self, text: Inbound<'_>) -> Result<(), sqlx::Error> {
        let hashes = self.hashes_of(text.from);
        sqlx::query!(
            r#"
            with first as (
                insert into inbound_texts as i (message_sid) values ($1)
                on conflict (message_sid) do update set received_at = now()
                    where i.received_at < now() - make_interval(secs => $2)
                returning message_sid
            )
            delete from optouts
             where phone_hash = any($3) and sender = any($4) and exists (select from first)
            "#,
            text.message_sid,
            REPEATS_FOR.as_secs_f64(),
            &hashes.all() as &[&[u8]],
            text.senders as &[&str],
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records many, each a sender and a number, all of them or none; `told` hears now and then how many are done.
    /// Answers how many are new.
    pub async fn import(
        &self,
        all: &[(String, String)],
        mut told: impl FnMut(usize),
    ) -> Result<u64, sqlx::Error> {
        let mut transaction = db::begin(&self.pool).await?;
        let (mut new, mut done) = (0, 0);
        for part in all.chunks(BATCH) {
            let hashes: Vec<_> = part.iter().map(|(_, phone)| self.hashes_of(phone)).collect();
            let added = sqlx::query!(
                r#"
                insert into optouts (phone_hash, sender, last_digits, source)
                select n.hash, n.sender, n.last_digits, $4
                  from unnest($1::bytea[], $2::text[], $3::text[], $5::bytea[]) as n (hash, sender, last_digits, twin)
                 where not exists (select from optouts o where o.phone_hash = n.twin and o.sender = n.sender)
                on conflict do nothing
                "#,
                &hashes.iter().map(|hashes| hashes.own.as_slice()).collect::<Vec<_>>() as &[&[u8]],
                &part.iter().map(|(sender, _)| sender.as_str()).collect::<Vec<_>>() as &[&str],
                &part.iter().map(|(_, phone)| last_digits(phone)).collect::<Vec<_>>() as &[&str],
                Source::Import.as_str(),
                &hashes.iter().map(Hashes::twin).collect::<Vec<_>>() as &[Option<&[u8]>],
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

/// Forgets STOPs and STARTs that are too old to come again, at most so many.
pub async fn forget_repeats(connection: &mut PgConnection, at_most: i64) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query!(
        r#"
        with old as materialized (
            select message_sid from inbound_texts where received_at < now() - make_interval(secs => $2)
             order by received_at limit $1 for update skip locked
        )
        delete from inbound_texts i using old where i.message_sid = any(array[old.message_sid])
        "#,
        at_most,
        REPEATS_FOR.as_secs_f64(),
    )
    .execute(connection)
    .await?;
    Ok(forgotten.rows_affected())
}

/// The last two, or fewer of what is too short to be a number.
fn last_digits(phone: &str) -> &str {
    let last = phone.len().saturating_sub(2);
    let digits = phone.get(last..).unwrap_or_default();
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits } else { "" }
}

#[cfg(test)]
mod tests;
