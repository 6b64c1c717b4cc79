//! The statements on `sessions` that an invite needs on its way. Each is safe to repeat, but for [`acknowledge`].

use super::{
    batch::Statement,
    claim_times::ClaimTimes,
    permission::{Recipient, SendPermission},
    row::SessionRow,
    status::{Status, TextState},
    steps::Step,
};
use crate::{
    db::kinds::{self, StatementKind},
    group_id::GroupId,
    masked::debug_shows,
    phone::PhoneNumber,
    refusal::Refusal,
    session_key::{SessionKey, Token},
    sms_text::SmsText,
    supervise::Task,
    traceparent::TraceParent,
};
use sqlx::{PgConnection, PgPool, types::Json};
use std::{collections::HashMap, time::Duration};
use time::OffsetDateTime;
use uuid::Uuid;

/// How long a session that ended unsettled stays `unknown` before it is `expired`, so that operators see it.
pub(super) const SEEN_AS_UNKNOWN: Duration = Duration::from_secs(15);

pub(super) fn to_json(refusal: &Refusal) -> String {
    // A struct of strings and numbers always serializes.
    serde_json::to_string(refusal).unwrap_or_default()
}

/// What is recorded in a row once the result of a claim is known.
#[derive(Debug)]
pub(crate) struct LedgerEntry {
    pub(crate) id: Uuid,
    /// The claim's number: it is recorded only while no newer claim has the row.
    pub(crate) fence: i64,
    /// `sending` while the invite is open.
    pub(crate) status: Status,
    pub(crate) text_state: TextState,
    pub(crate) provider_message_id: Option<String>,
    pub(crate) refusal: Option<Refusal>,
    /// How long no worker may hand the text over; `None` when none ever will.
    pub(crate) rest: Option<Duration>,
    /// The invite's span, if it is traced.
    pub(crate) span: Option<TraceParent>,
    /// What left the plain path.
    pub(crate) step: Option<Step>,
}

/// The checked statement that records results. `$more` are further arrays, `$columns` their names, and `$after` what is done
/// with them: the statement without steps is that of the plain path.
macro_rules! record {
    ($rows:expr, $more:literal, $columns:literal, $after:literal $(, $array:expr)* $(,)?) => {
        sqlx::query_scalar!(
            r#"
            with recorded as (
                update sessions s
                   -- A session that an agent has joined meanwhile stays joined, with or without a text.
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
                       -- Surely no text: the key is free again, unless an agent has joined with it.
                       key_held = o.status not in ('rejected', 'failed') or s.joined_at is not null,
                       session_key = case when o.status not in ('rejected', 'failed') or s.joined_at is not null then s.session_key end,
                       token = case when o.status not in ('rejected', 'failed') then s.token end,
                       -- Long enough to be seen as unknown, if the session is over by now.
                       due_at = case when o.status = 'unknown' then greatest(s.due_at, now() + make_interval(secs => $8))
                                     else s.due_at end,
                       updated_at = now()
                  from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $9::text[]"#
            + $more
            + r#")
                       as o (id, fence, status, text_state, provider_message_id, error, rest, error_code"#
            + $columns
            + r#")
                 where s.id = any(array[o.id]) and s.fence = o.fence and s.status = 'sending'
                returning s.id, s.group_id, s.session_key, o.status"#
            + $columns
            + r#"
            ),
            new_events as (
                insert into events (session_id, group_id, session_key, event)
                select id, group_id, session_key, 'sent' from recorded where status = 'sent'
            )"#
            + $after
            + r#"
            select id from recorded
            "#,
            &$rows.iter().map(|row| row.id).collect::<Vec<_>>(),
            &$rows.iter().map(|row| row.fence).collect::<Vec<_>>(),
            &$rows.iter().map(|row| row.status.as_str()).collect::<Vec<_>>() as &[&str],
            &$rows.iter().map(|row| row.text_state.as_str()).collect::<Vec<_>>() as &[&str],
            &$rows.iter().map(|row| row.provider_message_id.as_deref()).collect::<Vec<_>>()
                as &[Option<&str>],
            &$rows.iter().map(|row| row.refusal.as_ref().map(to_json)).collect::<Vec<_>>()
                as &[Option<String>],
            &$rows.iter().map(|row| row.rest.map(|rest| rest.as_secs_f64())).collect::<Vec<_>>()
                as &[Option<f64>],
            SEEN_AS_UNKNOWN.as_secs_f64(),
            &$rows.iter().map(|row| row.refusal.as_ref().map(|r| r.code.as_str())).collect::<Vec<_>>()
                as &[Option<&str>],
            $($array,)*
        )
    };
}

/// Records results; answers `false` for a row that has its outcome, or that another claim has.
///
/// `= any(array[…])` joins by the primary key only. For `=` the planner may choose a hash join while the table is small, and
/// keep that plan when the table has grown.
#[derive(Debug)]
pub(crate) struct RecordStatement;

impl Statement for RecordStatement {
    type Row = LedgerEntry;
    type Answer = bool;
    const TASK: Task = Task::RecordOutcomes;

    fn kind(&self) -> &'static StatementKind {
        &kinds::RECORD_OUTCOMES
    }

    fn span(row: &LedgerEntry) -> Option<TraceParent> {
        row.span
    }

    async fn run(
        &self,
        connection: &mut PgConnection,
        all: &[LedgerEntry],
    ) -> Result<Vec<bool>, sqlx::Error> {
        // Of several values for a row, an update takes any one: so it gets one only, first of all an accepted text.
        let mut chosen: HashMap<Uuid, usize> = HashMap::with_capacity(all.len());
        for (index, row) in all.iter().enumerate() {
            let first = chosen.entry(row.id).or_insert(index);
            if row.provider_message_id.is_some() && all[*first].provider_message_id.is_none() {
                *first = index;
            }
        }
        let is_chosen = |index: usize| chosen.get(&all[index].id) == Some(&index);
        let rows: Vec<&LedgerEntry> =
            all.iter().enumerate().filter(|(index, _)| is_chosen(*index)).map(|(_, row)| row).collect();
        let steps: Vec<_> = rows.iter().map(|row| row.step.as_ref().map(Step::columns)).collect();
        let recorded = if steps.iter().all(Option::is_none) {
            record!(rows, "", "", "").fetch_all(connection).await?
        } else {
            record!(
                rows,
                ", $10::text[], $11::text[]",
                ", kind, detail",
                ", new_steps as (
                    insert into steps (session_id, kind, detail)
                    select r.id, r.kind, r.detail::jsonb from recorded r
                     where r.kind is not null
                       and (select count(*) from (select from steps k where k.session_id = r.id limit 200) kept) < 200
                )",
                &steps.iter().map(|step| step.as_ref().map(|(kind, _)| kind.as_str())).collect::<Vec<_>>()
                    as &[Option<&str>],
                &steps.iter().map(|step| step.as_ref().map(|(_, detail)| detail.as_str())).collect::<Vec<_>>()
                    as &[Option<&str>],
            )
            .fetch_all(connection)
            .await?
        };
        let recorded: std::collections::HashSet<Uuid> = recorded.into_iter().collect();
        Ok((0..all.len()).map(|index| is_chosen(index) && recorded.contains(&all[index].id)).collect())
    }
}

/// Which row to find.
#[derive(Clone, Copy)]
pub(crate) enum RowLookup<'a> {
    Id(Uuid),
    /// The one that answers for a message id; `params` are the parameters of a repeat, as compact JSON.
    Owner {
        group: GroupId,
        message_id: &'a str,
        params: &'a str,
    },
    /// The newest that was written for this request and does not answer for its message id: not any more, or it never did.
    Former {
        group: GroupId,
        message_id: &'a str,
        request_sha256: &'a [u8; 32],
    },
    /// One of a request without a message id whose acknowledgement is not sure. Of several equal ones, one without an outcome
    /// comes first. None after a day, so that a lost mark does not hold up later requests for ever.
    Unacknowledged {
        request_sha256: &'a [u8; 32],
    },
}

debug_shows!(RowLookup<'_> {});

/// The row, if it exists. `settle` is how long the provider's list may lag.
pub(crate) async fn find(
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
               provider_message_id, created_at, expires_at, look_since,
               error as "error: Json<Refusal>", request_sha256,
               coalesce(session_params = $4::text::jsonb, true) as "same_params!",
               blanked, content_hash, case when blanked then $4::text::jsonb::text end as request_params,
               now() as "read_at!", extract(epoch from now() - created_at)::float8 as "age!",
               -- The lease of an old worker ends with its try; the time for the list comes after that.
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

/// Claims a row for one more try, which is counted before it is made. `None` when another worker has the row, the session is
/// over, or the text may not be sent any more. `fence` is the claim's new number: a second run of a claim is the same claim.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    row: &SessionRow,
    to: &Recipient<'_>,
    fence: i64,
    times: ClaimTimes,
) -> Result<Option<ClaimLimits>, sqlx::Error> {
    sqlx::query_as!(
        ClaimLimits,
        r#"
        with claimed as (
        update sessions
           set fence = $3, text_state = 'begun', attempts = $4, looks = 0, looked_at = null,
               unsettled = unsettled or $5, abandoned = $6,
               unsure_from = now() + make_interval(secs => $7),
               lease_until = now() + make_interval(secs => $7 + $8),
               updated_at = now()
         where id = $1 and status = 'sending' and expires_at > now()
           and (fence = $3 or (fence = $2 and coalesce(lease_until, now()) <= now() + interval '0.3 s'))
           and (select g.enabled and g.paused_at is null from groups g where g.id = group_id)
           and not exists (select from optouts o where o.phone_hash = any($9) and o.sender = any(array[$10, '*']))
        returning id, created_at, expires_at, deadline_at, valid_until
        ),
        new_steps as (
            insert into steps (session_id, kind, detail)
            select c.id, 'taken_over', jsonb_build_object('attempt', $4::int) from claimed c
             where $11 and (select count(*) from (select from steps k where k.session_id = c.id limit 200) kept) < 200
        )
        select extract(epoch from now() - created_at)::float8 as "age!",
               extract(epoch from expires_at - now())::float8 as "session_left!",
               extract(epoch from deadline_at - now())::float8 as deadline,
               extract(epoch from valid_until - now())::float8 as own_limit
          from claimed
        "#,
        row.id,
        row.fence,
        fence,
        row.attempts + 1,
        row.may_have_been_taken(),
        row.abandoned + i32::from(row.is_abandoned()),
        times.ends.as_secs_f64(),
        times.settle.as_secs_f64(),
        &to.hashes.all() as &[&[u8]],
        to.sender,
        row.is_abandoned(),
    )
    .fetch_optional(connection)
    .await
}

/// Claims a row that was begun and that no worker has claimed since, for the worker that wrote it.
pub(super) async fn claim_own(
    connection: &mut PgConnection,
    id: Uuid,
    fence: i64,
    times: ClaimTimes,
) -> Result<Option<ClaimedOwnRow>, sqlx::Error> {
    sqlx::query_as!(
        ClaimedOwnRow,
        r#"
        update sessions
           set fence = $2::bigint, updated_at = now(),
               unsure_from = now() + make_interval(secs => $3),
               lease_until = now() + make_interval(secs => $3 + $4)
         where id = $1 and status = 'sending' and text_state = 'begun' and fence = any(array[0::bigint, $2::bigint]) and unsure_from > now()
        returning expires_at, coalesce(ticket, '00000000-0000-0000-0000-000000000000') as "ticket!"
        "#,
        id,
        fence,
        times.ends.as_secs_f64(),
        times.settle.as_secs_f64(),
    )
    .fetch_optional(connection)
    .await
}

/// What a worker's own row has.
#[derive(Debug)]
pub(super) struct ClaimedOwnRow {
    pub(super) expires_at: Option<OffsetDateTime>,
    pub(super) ticket: Uuid,
}

/// How old a claimed row is, and how much time its claim has, in seconds.
#[derive(Debug)]
pub(crate) struct ClaimLimits {
    /// Since the row was created.
    pub(super) age: f64,
    pub(super) session_left: f64,
    pub(super) deadline: Option<f64>,
    pub(super) own_limit: Option<f64>,
}

/// Counts a look at the provider's list that missed the text of the last try. It counts from when the row was read before
/// the look, and not from now: a look proves nothing about the time after it.
pub(crate) async fn record_miss(pool: &PgPool, row: &SessionRow) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        with counted as (
            update sessions set looks = $3, looked_at = $4, updated_at = now()
             where id = $1 and fence = $2 and status = 'sending'
            returning id
        )
        insert into steps (session_id, kind, detail)
        select c.id, 'looked', '{"found": "nothing"}' from counted c
         where (select count(*) from (select from steps k where k.session_id = c.id limit 200) kept) < 200
        "#,
        row.id,
        row.fence,
        row.looks + 1,
        row.read_at,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// What shows that a text belongs to a session: its id at the provider, or as long as that is not known, the token in it.
pub(crate) struct TextMark {
    pub(super) provider_message_id: Option<String>,
    pub(super) token: String,
}

debug_shows!(TextMark { provider_message_id });

/// The marks of the other sessions of a number that have, or may have, one of these texts.
pub(super) async fn marks_of_others(
    pool: &PgPool,
    id: Uuid,
    phone: &PhoneNumber,
    provider_message_ids: &[String],
) -> Result<Vec<TextMark>, sqlx::Error> {
    sqlx::query_as!(
        TextMark,
        r#"select provider_message_id, token as "token!" from sessions
            where phone = $2 and token is not null and id <> $1
              and (provider_message_id = any($3)
                   or provider_message_id is null and text_state in ('begun', 'unknown'))"#,
        id,
        phone.as_e164(),
        provider_message_ids,
    )
    .fetch_all(pool)
    .await
}

/// Marks one row for each of these requests. Rows of equal requests are interchangeable: those with an outcome, and the
/// oldest, come first. Not safe to repeat: it would mark further rows.
pub(super) async fn acknowledge(pool: &PgPool, requests: &[[u8; 32]]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        with sure as (select r.sha256, count(*) as times from unnest($1::bytea[]) as r (sha256) group by r.sha256),
        equal as (
            select s.id, sure.times,
                   row_number() over (partition by sure.sha256 order by (s.status = 'sending'), s.id) as nth
              from sure cross join lateral
                   -- The offset makes the planner look each one up by the index.
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

/// Takes the message id from a row for which surely no text exists, so that a new publish may use it.
pub(super) async fn release_message_id(pool: &PgPool, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sessions set owns_message_id = false, updated_at = now()
          where id = $1 and owns_message_id and (status in ('rejected', 'failed') or text_state = 'refused')",
        id
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Whether a row's text may be sent now. Of two reasons against it for good, the group comes first (contract, section 7).
pub(crate) async fn may_send(
    pool: &PgPool,
    row: &SessionRow,
    to: &Recipient<'_>,
) -> Result<SendPermission, sqlx::Error> {
    let now = sqlx::query!(
        r#"select coalesce((select enabled from groups where id = $1), false) as "enabled!",
                  exists (select from groups where id = $1 and paused_at is not null) as "paused!",
                  exists (select from optouts where phone_hash = any($2) and sender = any(array[$3, '*'])) as "opted_out!""#,
        row.group_id.get(),
        &to.hashes.all() as &[&[u8]],
        to.sender,
    )
    .fetch_one(pool)
    .await?;
    Ok(match (now.enabled, now.opted_out, now.paused) {
        (false, ..) => SendPermission::SwitchedOff,
        (true, true, _) => SendPermission::OptedOut,
        (true, false, true) => SendPermission::Paused,
        (true, false, false) => SendPermission::Granted,
    })
}
