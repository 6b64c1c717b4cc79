//! The opt-outs: the numbers that want no texts from a From number or messaging service (docs/LIMITS.md).
//!
//! The table `optouts` has no phone number. A plain hash would not hide one, as all numbers can be tried; so each is hashed
//! under a key, which is sealed.

mod key;
mod keyword;

pub(crate) use key::OptOutsError;
pub(crate) use keyword::Keyword;
pub use keyword::keyword;

use crate::{
    audit::{Change, Operator},
    db::{Patience, kinds, repeat},
    hmac_key::HmacKey,
    masked::debug_shows,
    phone::{self, PhoneNumber},
    seal::{SealedBy, SecretsKey},
};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor, PgPool};
use std::time::Duration;
use strum::IntoStaticStr;
use time::OffsetDateTime;

/// The sender of an opt-out from all texts.
pub(crate) const ANY_SENDER: &str = "*";
/// Rows in one statement of an import.
const BATCH: usize = 1_000;
/// A STOP or START that comes again within this changes nothing (contract, section 13).
const REPEATS_FOR: Duration = Duration::from_hours(30 * 24);

/// Where an opt-out came from, other than a visitor's STOP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum OptOutSource {
    /// The provider refused a text because of it.
    Provider,
    /// `session-invite optouts add`.
    Command,
    /// `session-invite optouts import`.
    Import,
}

impl OptOutSource {
    fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A text from a visitor, as the provider's webhook has it.
#[derive(Clone, Copy)]
pub struct InboundText<'a> {
    /// The provider's id of the text.
    pub message_sid: &'a str,
    /// The visitor's number (E.164).
    pub from: &'a str,
    /// Where the visitor sent it: our number, and the messaging service of that number, if it has one.
    pub senders: &'a [&'a str],
}

/// Without the number.
impl std::fmt::Debug for InboundText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboundText").field("message_sid", &self.message_sid).finish_non_exhaustive()
    }
}

/// The hashes of a number in the table: its own, and that of its [`phone::twin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhoneHashes {
    pub own: [u8; 32],
    pub twin: Option<[u8; 32]>,
}

impl PhoneHashes {
    /// Both, as a statement takes them.
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

/// An opt-out in a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OptOutRow {
    pub sender: String,
    /// The last digits of the number.
    pub last_digits: String,
    pub source: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

debug_shows!(OptOutRow { sender, source });

/// The opt-outs of a number, from one sender's texts or from any's, the newest first. An opt-out from all texts counts for
/// each sender. It changes nothing.
pub(crate) async fn of_number(
    pool: &PgPool,
    secrets: &SecretsKey,
    phone: &PhoneNumber,
    sender: Option<&str>,
) -> Result<Vec<OptOutRow>, OptOutsError> {
    // Without a key no number was ever hashed.
    let Some(key) = key::read_made(pool, secrets).await? else { return Ok(Vec::new()) };
    let hashes = OptOuts { pool: pool.clone(), key }.hashes(phone);
    let found = sqlx::query_as!(
        OptOutRow,
        "select sender, last_digits, source, created_at from optouts
          where phone_hash = any($1) and ($2::text is null or sender in ($2, '*'))
          order by created_at desc, sender",
        &hashes.all() as &[&[u8]],
        sender,
    );
    Ok(found.fetch_all(pool).await?)
}

/// Which key of `SECRETS_KEY` sealed the key of the opt-outs, or `None` if it does not exist yet. It changes nothing.
pub(crate) async fn sealed_by(pool: &PgPool, secrets: &SecretsKey) -> Result<Option<SealedBy>, OptOutsError> {
    key::sealed_by(pool, secrets).await
}

/// Seals the key of the opt-outs under the first key. Returns whether an older key had sealed it.
pub(crate) async fn reseal(pool: &PgPool, secrets: &SecretsKey) -> Result<bool, sqlx::Error> {
    key::reseal(pool, secrets).await
}

impl OptOuts {
    /// Reads the key that numbers are hashed under. The first process of a database makes it.
    pub async fn open(pool: PgPool, secrets: &SecretsKey) -> Result<Self, OptOutsError> {
        let key = key::read_or_make(&pool, secrets).await?;
        Ok(Self { pool, key })
    }

    /// The hashes of a number.
    pub fn hashes(&self, phone: &PhoneNumber) -> PhoneHashes {
        self.hashes_of(phone.as_e164())
    }

    /// The same for the provider's name of a visitor, which may not be a number.
    fn hashes_of(&self, phone: &str) -> PhoneHashes {
        PhoneHashes { own: self.hash(phone), twin: phone::twin(phone).map(|twin| self.hash(&twin)) }
    }

    fn hash(&self, phone: &str) -> [u8; 32] {
        self.key.mac(&[phone.as_bytes()])
    }

    /// The key that numbers are hashed under, for other hashes of personal data.
    pub fn key(&self) -> HmacKey {
        self.key.clone()
    }

    /// Records an opt-out of this number from this sender's texts. Returns whether it is new.
    pub async fn record(&self, sender: &str, phone: &str, source: OptOutSource) -> Result<bool, sqlx::Error> {
        repeat(&kinds::OPT_OUT, Patience::Brief, || self.insert(&self.pool, sender, phone, source)).await
    }

    async fn insert(
        &self,
        db: impl PgExecutor<'_>,
        sender: &str,
        phone: &str,
        source: OptOutSource,
    ) -> Result<bool, sqlx::Error> {
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
        .execute(db)
        .await?;
        Ok(added.rows_affected() > 0)
    }

    /// The same for a command.
    pub(crate) async fn add(
        &self,
        operator: &Operator,
        sender: &str,
        phone: &str,
    ) -> Result<bool, sqlx::Error> {
        operator
            .change(None, async |tx| {
                let added = self.insert(tx, sender, phone, OptOutSource::Command).await?;
                let after = added.then(|| self.shown(sender, phone));
                Ok(Change { value: added, before: None, after })
            })
            .await
    }

    /// Removes an opt-out. Returns whether there was one.
    pub(crate) async fn remove(
        &self,
        operator: &Operator,
        sender: &str,
        phone: &str,
    ) -> Result<bool, sqlx::Error> {
        let hashes = self.hashes_of(phone);
        operator
            .change(None, async |tx| {
                let removed = sqlx::query!(
                    "delete from optouts where phone_hash = any($1) and sender = $2",
                    &hashes.all() as &[&[u8]],
                    sender
                )
                .execute(tx)
                .await?;
                let removed = removed.rows_affected() > 0;
                let before = removed.then(|| self.shown(sender, phone));
                Ok(Change { value: removed, before, after: None })
            })
            .await
    }

    /// An opt-out as the audit shows it.
    fn shown(&self, sender: &str, phone: &str) -> Value {
        json!({"phone_hash": self.shown_hash(phone), "sender": sender})
    }

    /// The hash of a number as the audit shows it.
    pub(crate) fn shown_hash(&self, phone: &str) -> String {
        self.key.sign(&[phone.as_bytes()])
    }

    /// Records a visitor's STOP. The same message again changes nothing, even after a later START, so it is safe to repeat.
    ///
    /// The provider does not send it again. So it is retried, for as long as the caller allows.
    pub async fn stop(&self, text: InboundText<'_>) -> Result<(), sqlx::Error> {
        repeat(&kinds::OPT_OUT, Patience::Long, || self.try_stop(text)).await
    }

    async fn try_stop(&self, text: InboundText<'_>) -> Result<(), sqlx::Error> {
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

    /// Carries out a visitor's START, with the same promises.
    pub async fn start(&self, text: InboundText<'_>) -> Result<(), sqlx::Error> {
        repeat(&kinds::OPT_IN, Patience::Long, || self.try_start(text)).await
    }

    async fn try_start(&self, text: InboundText<'_>) -> Result<(), sqlx::Error> {
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

    /// Records many pairs of sender and number, all of them or none. `progress` gets the number of pairs done so far.
    /// Returns how many are new.
    pub(crate) async fn import(
        &self,
        operator: &Operator,
        all: &[(String, String)],
        mut progress: impl FnMut(usize),
    ) -> Result<u64, sqlx::Error> {
        let import = async |tx: &mut PgConnection| {
            let (mut new, mut done) = (0, 0);
            for part in all.chunks(BATCH) {
                new += self.import_part(&mut *tx, part).await?;
                done += part.len();
                progress(done);
            }
            let after = (new > 0).then(|| json!({"read": all.len(), "new": new}));
            Ok(Change { value: new, before: None, after })
        };
        operator.change(None, import).await
    }

    async fn import_part(
        &self,
        tx: &mut PgConnection,
        part: &[(String, String)],
    ) -> Result<u64, sqlx::Error> {
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
            OptOutSource::Import.as_str(),
            &hashes.iter().map(PhoneHashes::twin).collect::<Vec<_>>() as &[Option<&[u8]>],
        )
        .execute(tx)
        .await?;
        Ok(added.rows_affected())
    }
}

/// The opt-outs of one sender or of all, the newest first. It needs no key.
pub(crate) async fn list(
    pool: &PgPool,
    sender: Option<&str>,
    limit: i64,
) -> Result<Vec<OptOutRow>, sqlx::Error> {
    sqlx::query_as!(
        OptOutRow,
        "select sender, last_digits, source, created_at from optouts
          where $1::text is null or sender = $1
          order by created_at desc, phone_hash desc, sender desc limit $2",
        sender,
        limit,
    )
    .fetch_all(pool)
    .await
}

/// A checked statement on the ids of STOPs and STARTs that are too old to come again.
macro_rules! on_old_repeats {
    ($query:ident, $before:literal, $after:literal $(, $more:expr)* $(,)?) => {
        sqlx::$query!(
            $before + " received_at < now() - make_interval(secs => $1) " + $after,
            REPEATS_FOR.as_secs_f64(),
            $($more,)*
        )
    };
}

/// Deletes at most `at_most` of them.
pub(crate) async fn forget_repeats(connection: &mut PgConnection, at_most: i64) -> Result<u64, sqlx::Error> {
    let forgetting = on_old_repeats!(
        query,
        "with old as materialized (
            select message_sid from inbound_texts where",
        "order by received_at limit $2 for update skip locked
        )
        delete from inbound_texts i using old where i.message_sid = any(array[old.message_sid])",
        at_most,
    );
    Ok(forgetting.execute(connection).await?.rows_affected())
}

/// Counts them.
pub(crate) async fn count_old_repeats(pool: &PgPool) -> Result<i64, sqlx::Error> {
    on_old_repeats!(query_scalar, r#"select count(*) as "count!" from inbound_texts where"#, "")
        .fetch_one(pool)
        .await
}

/// The last two digits; fewer if the text is too short to be a number.
fn last_digits(phone: &str) -> &str {
    let last = phone.len().saturating_sub(2);
    let digits = phone.get(last..).unwrap_or_default();
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits } else { "" }
}

#[cfg(test)]
mod tests;
