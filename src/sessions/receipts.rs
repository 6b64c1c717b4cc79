//! The provider's word on a session's text: from its list, from an answer that came late, from a delivery receipt. In any
//! order, and as often as it likes: what is stored is the same in the end.

use super::{Status, metrics};
use crate::db::{Patience, kinds, repeat};
use sqlx::PgPool;
use uuid::Uuid;

/// What the provider says of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It has the text.
    Taken,
    Delivered,
    /// It will not arrive; with the provider's code, if it gave one.
    Undelivered {
        code: Option<i32>,
    },
}

/// What follows from that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It stands in the row, by this or already.
    Noted,
    /// Another text of this session was taken before, under that id.
    Twice {
        first: Option<String>,
    },
    /// The sender was told that there is no text.
    ToldNot,
    NoSession,
}

/// `note`, for the provider's own request.
pub async fn hear(
    pool: &PgPool,
    session: Uuid,
    provider_message_id: &str,
    word: Word,
) -> Result<Heard, sqlx::Error> {
    let hear = || note(pool, session, provider_message_id, word);
    let heard = repeat(&kinds::HEAR, Patience::Brief, hear).await?;
    report(session, provider_message_id, &heard);
    Ok(heard)
}

/// Logs and counts what must not be: a second text, or a text after a reply that said that there is none.
pub(super) fn report(session: Uuid, provider_message_id: &str, heard: &Heard) {
    match heard {
        Heard::Noted | Heard::NoSession => {}
        Heard::Twice { first } => {
            metrics::duplicate_sms();
            tracing::error!(%session, first, second = ?provider_message_id, "a visitor was texted twice");
        }
        Heard::ToldNot => {
            metrics::sms_after_failure_reply();
            tracing::error!(%session, text = ?provider_message_id, "a text went out after the reply had said that none did");
        }
    }
}

/// Notes it, with its events. It proves that a text is there, whoever has a claim on the row: so it settles one that is
/// `sending` or `unknown`; an answer that was given stays as it is. Delivered is the last word: what was not delivered may
/// yet arrive, and what has arrived stays delivered.
pub(super) async fn note(
    pool: &PgPool,
    session: Uuid,
    provider_message_id: &str,
    word: Word,
) -> Result<Heard, sqlx::Error> {
    let (said, code) = match word {
        Word::Taken => (Status::Sent, None),
        Word::Delivered => (Status::Delivered, None),
        Word::Undelivered { code } => (Status::Undelivered, code.map(|code| code.to_string())),
    };
    let is_ours = sqlx::query_scalar!(
        r#"
        with ours as materialized (
            select id, status from sessions
             where id = $1
               and (provider_message_id = $2
                    or (provider_message_id is null and token is not null and coalesce(text_state, 'begun') <> 'refused'))
               for update
        ),
        noted as (
            update sessions s
               set provider_message_id = $2,
                   text_state = 'accepted',
                   lease_until = null,
                   sent_at = coalesce(s.sent_at, now()),
                   delivered_at = case when $3 = 'delivered' then coalesce(s.delivered_at, now()) else s.delivered_at end,
                   undelivered_at = case when $3 = 'undelivered' then coalesce(s.undelivered_at, now()) else s.undelivered_at end,
                   error_code = case when s.error is not null then s.error_code
                                     when $3 = 'undelivered' then $4
                                     when $3 = 'delivered' then null
                                     else s.error_code end,
                   status = case when s.status not in ('sending', 'unknown', 'sent', 'delivered', 'undelivered') then s.status
                                 when s.joined_at is not null then 'joined'
                                 when $3 = 'delivered' or s.delivered_at is not null then 'delivered'
                                 when $3 = 'undelivered' or s.undelivered_at is not null then 'undelivered'
                                 else 'sent' end,
                   updated_at = now()
              from ours
             where s.id = any(array[ours.id])
               -- What changes nothing is not written.
               and (s.provider_message_id is null or s.status in ('sending', 'unknown')
                    or (s.delivered_at is null and ($3 = 'delivered' or ($3 = 'undelivered' and s.undelivered_at is null))))
            returning s.id, s.group_id, s.session_key, ours.status as was
        ),
        told as (
            insert into events (session_id, group_id, session_key, event)
            select noted.id, noted.group_id, noted.session_key, e.event
              from noted
             cross join lateral unnest(array[case when noted.was in ('sending', 'unknown') then 'sent' end, nullif($3, 'sent')])
                   with ordinality as e (event, nth)
             where e.event is not null
             order by e.nth
        )
        select exists (select from ours) as "ours!"
        "#,
        session,
        provider_message_id,
        said.as_str(),
        code,
    )
    .fetch_one(pool)
    .await?;
    if is_ours { Ok(Heard::Noted) } else { whose(pool, session).await }
}

/// Why it is not this session's text, as far as its row knows.
async fn whose(pool: &PgPool, session: Uuid) -> Result<Heard, sqlx::Error> {
    let row = sqlx::query!(
        r#"select provider_message_id,
                  status in ('rejected', 'failed') or coalesce(text_state = 'refused', false) as "told_not!"
             from sessions where id = $1"#,
        session
    )
    .fetch_optional(pool)
    .await?;
    Ok(match row {
        None => Heard::NoSession,
        Some(row) if row.told_not => Heard::ToldNot,
        Some(row) => Heard::Twice { first: row.provider_message_id },
    })
}
