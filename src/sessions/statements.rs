//! The statements on `sessions` that an invite takes on its way. Each is safe to repeat.

use super::{
    batch::Statement,
    row::{NewRow, Standing, Times},
};
use crate::{group::GroupId, refusal::Refusal};
use sqlx::{PgPool, types::Json};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// Inserts rows; answers `None` for one whose key, token or message id is taken, or that is there already.
#[derive(Debug)]
pub struct Insert {
    pub pool: PgPool,
    /// How long another worker waits for the one that began a text before it takes its outcome for unknown.
    pub lease: Duration,
}

impl Statement for Insert {
    type Row = NewRow;
    type Answer = Option<Times>;
    const NAME: &'static str = "insert sessions";

    async fn run(&self, rows: &[NewRow]) -> Result<Vec<Option<Times>>, sqlx::Error> {
        fn column<'a, T>(rows: &'a [NewRow], value: impl Fn(&'a NewRow) -> T) -> Vec<T> {
            rows.iter().map(value).collect()
        }
        let inserted = sqlx::query!(
            r#"
            insert into sessions (id, group_id, status, session_type, session_params, phone, requested_by, message_id,
                                  correlation_id, request_sha256, owns_message_id, session_key, token, invitation_text,
                                  error_code, error, key_held, attempts, lease_until, expires_at, due_at, ended_at,
                                  acknowledged)
            select r.id, r.group_id, r.status, r.session_type, r.session_params::jsonb, r.phone, r.requested_by, r.message_id,
                   r.correlation_id, r.request_sha256, r.owns_message_id, r.session_key, r.token, r.invitation_text,
                   r.error_code, r.error::jsonb, r.ttl is not null, (r.ttl is not null)::int,
                   case when r.ttl is not null then now() + make_interval(secs => $18) end,
                   now() + make_interval(secs => r.ttl), now() + make_interval(secs => r.ttl),
                   case when r.ttl is null then now() end, r.message_id is not null
              from unnest($1::uuid[], $2::bigint[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[], $8::text[],
                          $9::text[], $10::bytea[], $11::bool[], $12::text[], $13::text[], $14::text[], $15::text[],
                          $16::text[], $17::float8[])
                   as r (id, group_id, status, session_type, session_params, phone, requested_by, message_id,
                         correlation_id, request_sha256, owns_message_id, session_key, token, invitation_text,
                         error_code, error, ttl)
            on conflict do nothing
            returning id, expires_at
            "#,
            &column(rows, |row| row.id),
            &column(rows, |row| row.about.group.get()),
            &column(rows, NewRow::status) as &[&str],
            &column(rows, |row| row.asked.session_type) as &[Option<i32>],
            &column(rows, |row| row.asked.session_params.as_str()) as &[&str],
            &column(rows, |row| row.asked.phone.as_deref()) as &[Option<&str>],
            &column(rows, |row| row.about.requested_by.as_str()) as &[&str],
            &column(rows, |row| row.about.message_id.as_deref()) as &[Option<&str>],
            &column(rows, |row| row.about.correlation_id.as_deref()) as &[Option<&str>],
            &column(rows, |row| row.about.request_sha256.as_slice()) as &[&[u8]],
            &column(rows, |row| row.owns_message_id && row.about.message_id.is_some()),
            &column(rows, |row| row.begun().map(|(key, ..)| key)) as &[Option<&str>],
            &column(rows, |row| row.begun().map(|(_, token, ..)| token)) as &[Option<&str>],
            &column(rows, |row| row.begun().map(|(_, _, text, _)| text)) as &[Option<&str>],
            &column(rows, |row| row.refusal().map(|refusal| refusal.code.as_str())) as &[Option<&str>],
            &column(rows, |row| row.refusal().map(to_json)) as &[Option<String>],
            &column(rows, |row| row.begun().map(|(_, _, _, ttl)| ttl.as_secs_f64())) as &[Option<f64>],
            self.lease.as_secs_f64(),
        )
        .fetch_all(&self.pool)
        .await?;
        let times: HashMap<Uuid, Times> =
            inserted.into_iter().map(|row| (row.id, Times { expires_at: row.expires_at })).collect();
        Ok(rows.iter().map(|row| times.get(&row.id).copied()).collect())
    }
}

fn to_json(refusal: &Refusal) -> String {
    // A struct of strings and numbers always serializes.
    serde_json::to_string(refusal).unwrap_or_default()
}

/// What became of a begun text.
#[derive(Debug)]
pub struct Ended {
    pub id: Uuid,
    pub status: &'static str,
    pub provider_message_id: Option<String>,
    pub refusal: Option<Refusal>,
}

/// Records outcomes; answers `false` for a row that is no longer being sent, as another has settled it.
#[derive(Debug)]
pub struct Record {
    pub pool: PgPool,
}

impl Statement for Record {
    type Row = Ended;
    type Answer = bool;
    const NAME: &'static str = "record outcomes";

    async fn run(&self, rows: &[Ended]) -> Result<Vec<bool>, sqlx::Error> {
        let recorded = sqlx::query_scalar!(
            r#"
            update sessions s
               set status = o.status,
                   provider_message_id = o.provider_message_id,
                   error_code = o.error_code,
                   error = o.error::jsonb,
                   sent_at = case when o.status = 'sent' then now() end,
                   ended_at = case when o.status in ('rejected', 'failed') then now() end,
                   -- Surely no text: nobody has seen the key, and it is free again.
                   key_held = o.status not in ('rejected', 'failed'),
                   session_key = case when o.status not in ('rejected', 'failed') then s.session_key end,
                   token = case when o.status not in ('rejected', 'failed') then s.token end,
                   updated_at = now()
              from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[])
                   as o (id, status, provider_message_id, error_code, error)
             where s.id = o.id and s.status = 'sending'
            returning s.id
            "#,
            &rows.iter().map(|row| row.id).collect::<Vec<_>>(),
            &rows.iter().map(|row| row.status).collect::<Vec<_>>() as &[&str],
            &rows.iter().map(|row| row.provider_message_id.as_deref()).collect::<Vec<_>>()
                as &[Option<&str>],
            &rows.iter().map(|row| row.refusal.as_ref().map(|r| r.code.as_str())).collect::<Vec<_>>()
                as &[Option<&str>],
            &rows.iter().map(|row| row.refusal.as_ref().map(to_json)).collect::<Vec<_>>()
                as &[Option<String>],
        )
        .fetch_all(&self.pool)
        .await?;
        let recorded: std::collections::HashSet<Uuid> = recorded.into_iter().collect();
        Ok(rows.iter().map(|row| recorded.contains(&row.id)).collect())
    }
}

/// The row with this id.
pub async fn by_id(pool: &PgPool, id: Uuid) -> Result<Option<Standing>, sqlx::Error> {
    sqlx::query_as!(
        Standing,
        r#"
        select id, group_id, status, session_key, session_type, phone, invitation_text, provider_message_id, expires_at,
               error as "error: Json<Refusal>", request_sha256, true as "same_params!",
               coalesce(lease_until < now(), true) as "lease_over!"
          from sessions
         where id = $1
        "#,
        id
    )
    .fetch_optional(pool)
    .await
}

/// The row that answers for a message id; `params` is what a repeat asks for, as compact JSON.
pub async fn by_message_id(
    pool: &PgPool,
    group: GroupId,
    message_id: &str,
    params: &str,
) -> Result<Option<Standing>, sqlx::Error> {
    sqlx::query_as!(
        Standing,
        r#"
        select id, group_id, status, session_key, session_type, phone, invitation_text, provider_message_id, expires_at,
               error as "error: Json<Refusal>", request_sha256, session_params = $3::text::jsonb as "same_params!",
               coalesce(lease_until < now(), true) as "lease_over!"
          from sessions
         where group_id = $1 and message_id = $2 and owns_message_id
        "#,
        group.get(),
        message_id,
        params,
    )
    .fetch_optional(pool)
    .await
}

/// The row of a request without a message id whose acknowledgement is not sure. Of several that were equal, one whose
/// outcome is open comes first. None after a day, so that a lost mark holds up no later request for ever.
pub async fn unacknowledged(
    pool: &PgPool,
    request_sha256: &[u8; 32],
) -> Result<Option<Standing>, sqlx::Error> {
    sqlx::query_as!(
        Standing,
        r#"
        select id, group_id, status, session_key, session_type, phone, invitation_text, provider_message_id, expires_at,
               error as "error: Json<Refusal>", request_sha256, true as "same_params!",
               coalesce(lease_until < now(), true) as "lease_over!"
          from sessions
         where request_sha256 = $1 and not acknowledged and created_at > now() - interval '1 day'
         order by (status = 'sending') desc, id
         limit 1
        "#,
        request_sha256.as_slice()
    )
    .fetch_optional(pool)
    .await
}

/// Marks a row for each of these requests. Equal ones are as good as each other; the finished and the oldest first.
pub async fn acknowledge(pool: &PgPool, requests: &[[u8; 32]]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        with sure as (select r.sha256, count(*) as times from unnest($1::bytea[]) as r (sha256) group by r.sha256),
        equal as (
            select s.id, sure.times,
                   row_number() over (partition by s.request_sha256 order by (s.status = 'sending'), s.id) as nth
              from sure join sessions s on s.request_sha256 = sure.sha256 and not s.acknowledged
        )
        update sessions s set acknowledged = true from equal where s.id = equal.id and equal.nth <= equal.times
        "#,
        &requests.iter().map(<[u8; 32]>::as_slice).collect::<Vec<_>>() as &[&[u8]],
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Takes a message id from a row after which surely no text exists, for a new publish.
pub async fn release_message_id(pool: &PgPool, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sessions set owns_message_id = false, updated_at = now()
          where id = $1 and owns_message_id and status in ('rejected', 'failed')",
        id
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Takes a text whose worker has had its time for one that may have gone out.
pub async fn abandon(pool: &PgPool, id: Uuid, refusal: &Refusal) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sessions set status = 'unknown', error_code = $2, error = $3, updated_at = now()
          where id = $1 and status = 'sending' and lease_until < now()",
        id,
        refusal.code.as_str(),
        Json(refusal) as Json<&Refusal>,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The provider's word for a text that had been taken for unknown: it was accepted after all. The answer that
/// was given stays as it is.
pub async fn accepted_after_all(
    pool: &PgPool,
    id: Uuid,
    provider_message_id: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sessions set status = 'sent', provider_message_id = $2, sent_at = now(), updated_at = now()
          where id = $1 and status = 'unknown'",
        id,
        provider_message_id
    )
    .execute(pool)
    .await?;
    Ok(())
}
