//! The statements on `sessions` that an invite takes on its way. Each is safe to repeat.

use super::{
    batch::Statement,
    permission::{Permission, Recipient},
    row::SessionRow,
    status::{Status, TextState},
};
use crate::{
    db::kinds::{self, Kind},
    group_id::GroupId,
    masked::debug_shows,
    phone::PhoneNumber,
    refusal::Refusal,
    session_key::{SessionKey, Token},
    sms_text::SmsText,
    supervise::Task,
};
use sqlx::{PgConnection, PgPool, types::Json};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// How long a session that ended unsettled stays `unknown` before it is `expired`, so that it is seen.
pub const SEEN_AS_UNKNOWN: Duration = Duration::from_secs(15);

/// How long whoever begins a try has the row to itself, by the database's clock.
#[derive(Debug, Clone, Copy)]
pub struct ClaimTimes {
    /// After this the try has surely ended: the margin for the worker's own delays, and the provider's time-out.
    pub ends: Duration,
    /// The provider's list may lag so long after that.
    pub settle: Duration,
}

pub(super) fn to_json(refusal: &Refusal) -> String {
    // A struct of strings and numbers always serializes.
    serde_json::to_string(refusal).unwrap_or_default()
}

/// What a row's ledger says once the result of a claim is known.
#[derive(Debug)]
pub struct LedgerEntry {
    pub id: Uuid,
    /// The claim's name: a newer one voids this.
    pub fence: i64,
    /// `sending` while the invite goes on.
    pub status: Status,
    pub text_state: TextState,
    pub provider_message_id: Option<String>,
    pub refusal: Option<Refusal>,
    /// For how long nobody may hand the text over; `None` when nobody will any more.
    pub rest: Option<Duration>,
}

/// Records outcomes; answers `false` for a row that is not this claim's any more.
///
/// `= any(array[…])` joins by the primary key only. Of `=` the planner may make a hash join, while the table is small and
/// its statistics smaller, and keep that for a table that has grown.
#[derive(Debug)]
pub struct Record;

impl Statement for Record {
    type Row = LedgerEntry;
    type Answer = bool;
    const TASK: Task = Task::RecordOutcomes;

    fn kind(&self) -> &'static Kind {
        &kinds::RECORD_OUTCOMES
    }

    async fn run(&self, line: &mut PgConnection, all: &[LedgerEntry]) -> Result<Vec<bool>, sqlx::Error> {
        // An update takes one of several values for a row, whichever: so it gets one only, and the provider's word first.
        let mut chosen: HashMap<Uuid, usize> = HashMap::with_capacity(all.len());
        for (place, row) in all.iter().enumerate() {
            let first = chosen.entry(row.id).or_insert(place);
            if row.provider_message_id.is_some() && all[*first].provider_message_id.is_none() {
                *first = place;
            }
        }
        let is_chosen = |place: usize| chosen.get(&all[place].id) == Some(&place);
        let rows: Vec<&LedgerEntry> =
            all.iter().enumerate().filter(|(place, _)| is_chosen(*place)).map(|(_, row)| row).collect();
        let recorded = sqlx::query_scalar!(
            r#"
            with recorded as (
                update sessions s
                   -- Whoever has joined in the meantime has joined, whatever became of the text.
                   set status = case when s.joined_at is not null and o.status <> 'sending' then 'joined' else o.status end,
                       text_state = o.text_state,
                       provider_message_id = o.provider_message_id,
                       error_code = o.error_code,
                       error = o.error::jsonb,
                       lease_until = now() + make_interval(secs => o.rest),
                       unsure_from = case when o.text_state = 'unknown' and s.text_state = 'begun' then least(s.unsure_from, now())
                                          else s.unsure_from end,
                       sent_at = case when o.status = 'sent' then now() end,
                       ended_at = case when o.status in ('rejected', 'failed') and s.joined_at is null then now() end,
                       -- Surely no text: nobody has seen the key but an agent who has joined, and else it is free again.
                       key_held = o.status not in ('rejected', 'failed') or s.joined_at is not null,
                       session_key = case when o.status not in ('rejected', 'failed') or s.joined_at is not null then s.session_key end,
                       token = case when o.status not in ('rejected', 'failed') then s.token end,
                       -- Long enough to be seen as unknown, if the session is over by now.
                       due_at = case when o.status = 'unknown' then greatest(s.due_at, now() + make_interval(secs => $8))
                                     else s.due_at end,
                       updated_at = now()
                  from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $9::text[])
                       as o (id, fence, status, text_state, provider_message_id, error, rest, error_code)
                 where s.id = any(array[o.id]) and s.fence = o.fence and s.status = 'sending'
                returning s.id, s.group_id, s.session_key, o.status
            ),
            told as (
                insert into events (session_id, group_id, session_key, event)
                select id, group_id, session_key, 'sent' from recorded where status = 'sent'
            )
            select id from recorded
            "#,
            &rows.iter().map(|row| row.id).collect::<Vec<_>>(),
            &rows.iter().map(|row| row.fence).collect::<Vec<_>>(),
            &rows.iter().map(|row| row.status.as_str()).collect::<Vec<_>>() as &[&str],
            &rows.iter().map(|row| row.text_state.as_str()).collect::<Vec<_>>() as &[&str],
            &rows.iter().map(|row| row.provider_message_id.as_deref()).collect::<Vec<_>>()
                as &[Option<&str>],
            &rows.iter().map(|row| row.refusal.as_ref().map(to_json)).collect::<Vec<_>>()
                as &[Option<String>],
            &rows.iter().map(|row| row.rest.map(|rest| rest.as_secs_f64())).collect::<Vec<_>>()
                as &[Option<f64>],
            SEEN_AS_UNKNOWN.as_secs_f64(),
            &rows.iter().map(|row| row.refusal.as_ref().map(|r| r.code.as_str())).collect::<Vec<_>>()
                as &[Option<&str>],
        )
        .fetch_all(line)
        .await?;
        let recorded: std::collections::HashSet<Uuid> = recorded.into_iter().collect();
        Ok((0..all.len()).map(|place| is_chosen(place) && recorded.contains(&all[place].id)).collect())
    }
}

/// Which row is meant.
#[derive(Clone, Copy)]
pub enum RowLookup<'a> {
    Id(Uuid),
    /// The one that answers for a message id; `params` is what a repeat asks for, as compact JSON.
    Owner {
        group: GroupId,
        message_id: &'a str,
        params: &'a str,
    },
    /// The newest that was written for this very request and does not answer for its message id, any more or ever.
    Former {
        group: GroupId,
        message_id: &'a str,
        request_sha256: &'a [u8; 32],
    },
    /// One of a request without a message id whose acknowledgement is not sure. Of several that were equal, one whose
    /// outcome is open comes first. None after a day, so that a lost mark holds up no later request for ever.
    Unacknowledged {
        request_sha256: &'a [u8; 32],
    },
}

debug_shows!(RowLookup<'_> {  });

/// The row that is meant, if it is there.
///
/// `settle` is how long the provider's list may lag.
pub async fn find(
    pool: &PgPool,
    lookup: RowLookup<'_>,
    settle: Duration,
) -> Result<Option<SessionRow>, sqlx::Error> {
    let (mut id, mut owner, mut sha256) = (None, None, None);
    match lookup {
        RowLookup::Id(given) => id = Some(given),
        RowLookup::Owner { group, message_id, params } => owner = Some((group.get(), message_id, params)),
        RowLookup::Former { group, message_id, request_sha256 } => {
            owner = Some((group.get(), message_id, "{}"));
            sha256 = Some(request_sha256.as_slice());
        }
        RowLookup::Unacknowledged { request_sha256 } => sha256 = Some(request_sha256.as_slice()),
    }
    sqlx::query_as!(
        SessionRow,
        r#"
        select id, group_id as "group_id: GroupId", status as "status: Status", text_state as "text_state: TextState", fence,
               coalesce(ticket, '00000000-0000-0000-0000-000000000000') as "ticket!", attempts, looks, unsettled, abandoned,
               session_key as "session_key: SessionKey", token as "token: Token", session_type,
               phone as "phone: PhoneNumber", invitation_text as "invitation_text: SmsText",
               provider_message_id, created_at, expires_at,
               error as "error: Json<Refusal>", request_sha256,
               coalesce(session_params = $4::text::jsonb, true) as "same_params!",
               blanked, content_hash, case when blanked then $4::text::jsonb::text end as asked_params,
               now() as "read_at!", extract(epoch from now() - created_at)::float8 as "age!",
               -- An old worker's lease ends with its try: the list has its time after that.
               coalesce(extract(epoch from lease_until - now()) + case when unsure_from is null then $6::float8 else 0 end,
                        0)::float8 as "lease_left!",
               coalesce(extract(epoch from now() - coalesce(unsure_from, lease_until)), 0)::float8 as "unsure_for!",
               extract(epoch from now() - looked_at)::float8 as looked_ago,
               coalesce(extract(epoch from expires_at - now()), 0)::float8 as "session_left!",
               extract(epoch from deadline_at - now())::float8 as deadline_left
          from sessions
         where id = case
                   when $1::uuid is not null then $1
                   when $3::text is not null and $5::bytea is not null then
                       (select f.id from sessions f
                         where f.group_id = $2 and f.message_id = $3 and f.request_sha256 = $5 and not f.owns_message_id
                         order by f.id desc limit 1)
                   when $3::text is not null then
                       (select o.id from sessions o where o.group_id = $2 and o.message_id = $3 and o.owns_message_id)
                   else (select u.id from sessions u
                          where u.request_sha256 = $5 and not u.acknowledged and u.created_at > now() - interval '1 day'
                          order by (u.status = 'sending') desc, u.id limit 1)
               end
        "#,
        id,
        owner.map(|(group, ..)| group),
        owner.map(|(_, message_id, _)| message_id),
        owner.map(|(.., params)| params),
        sha256,
        settle.as_secs_f64(),
    )
    .fetch_optional(pool)
    .await
}

/// Claims a row for one more try, which is counted before it is made; `None` when it is another's, over, or not to be
/// sent any more. `fence` is the claim's new name: the same claim made again is the same claim.
pub async fn claim(
    connection: &mut PgConnection,
    row: &SessionRow,
    to: &Recipient<'_>,
    fence: i64,
    lease: ClaimTimes,
) -> Result<Option<ClaimLimits>, sqlx::Error> {
    sqlx::query_as!(
        ClaimLimits,
        r#"
        update sessions
           set fence = $3, text_state = 'begun', attempts = $4, looks = 0, looked_at = null,
               unsettled = unsettled or $5, abandoned = $6,
               unsure_from = now() + make_interval(secs => $7),
               lease_until = now() + make_interval(secs => $7 + $8),
               updated_at = now()
         where id = $1 and status = 'sending' and expires_at > now()
           and (fence = $3 or (fence = $2 and coalesce(lease_until, now()) <= now() + interval '0.3 s'))
           and (select g.enabled from groups g where g.id = group_id)
           and not exists (select from optouts o where o.phone_hash = any($9) and o.sender = any(array[$10, '*']))
        returning extract(epoch from expires_at - now())::float8 as "session_left!",
                  extract(epoch from deadline_at - now())::float8 as deadline,
                  extract(epoch from valid_until - now())::float8 as own_limit
        "#,
        row.id,
        row.fence,
        fence,
        row.attempts + 1,
        row.unsure_unless_looked(),
        row.abandoned + i32::from(row.is_abandoned()),
        lease.ends.as_secs_f64(),
        lease.settle.as_secs_f64(),
        &to.hashes.all() as &[&[u8]],
        to.sender,
    )
    .fetch_optional(connection)
    .await
}

/// What is left to a claim.
#[derive(Debug)]
pub struct ClaimLimits {
    pub session_left: f64,
    pub deadline: Option<f64>,
    pub own_limit: Option<f64>,
}

/// Counts a look at the provider's list that missed the text of the claim's try. It proves no more than it did when it was
/// made, however late it is written down: so it counts from when the row was read that asked for it.
pub async fn missed(pool: &PgPool, row: &SessionRow) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sessions set looks = $3, looked_at = $4, updated_at = now()
          where id = $1 and fence = $2 and status = 'sending'",
        row.id,
        row.fence,
        row.looks + 1,
        row.read_at,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Which of these texts to a number another session has.
pub async fn taken_texts(
    pool: &PgPool,
    id: Uuid,
    phone: &PhoneNumber,
    provider_message_ids: &[String],
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select provider_message_id as "id!" from sessions
            where phone = $2 and token is not null and id <> $1 and provider_message_id = any($3)"#,
        id,
        phone.as_e164(),
        provider_message_ids,
    )
    .fetch_all(pool)
    .await
}

/// Marks a row for each of these requests. Equal ones are as good as each other; the finished and the oldest first.
pub async fn acknowledge(pool: &PgPool, requests: &[[u8; 32]]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        with sure as (select r.sha256, count(*) as times from unnest($1::bytea[]) as r (sha256) group by r.sha256),
        equal as (
            select s.id, sure.times,
                   row_number() over (partition by sure.sha256 order by (s.status = 'sending'), s.id) as nth
              from sure cross join lateral
                   -- With an offset it is asked for each, by the index.
                   (select id, status from sessions where request_sha256 = sure.sha256 and not acknowledged offset 0) s
        )
        update sessions s set acknowledged = true from equal
         where s.id = any(array[equal.id]) and equal.nth <= equal.times
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
          where id = $1 and owns_message_id and (status in ('rejected', 'failed') or text_state = 'refused')",
        id
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Whether a row's text may be sent still. Of both reasons against it, the group comes first (contract, section 7).
pub async fn may_send(
    pool: &PgPool,
    row: &SessionRow,
    to: &Recipient<'_>,
) -> Result<Permission, sqlx::Error> {
    let now = sqlx::query!(
        r#"select coalesce((select enabled from groups where id = $1), false) as "enabled!",
                  exists (select from optouts where phone_hash = any($2) and sender = any(array[$3, '*'])) as "opted_out!""#,
        row.group_id.get(),
        &to.hashes.all() as &[&[u8]],
        to.sender,
    )
    .fetch_one(pool)
    .await?;
    Ok(match (now.enabled, now.opted_out) {
        (false, _) => Permission::SwitchedOff,
        (true, true) => Permission::OptedOut,
        (true, false) => Permission::Granted,
    })
}
