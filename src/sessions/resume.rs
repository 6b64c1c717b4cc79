//! Open invites that go on from their row: the broker may have lost their message, as when a virtual host is deleted and made
//! again; or their group was paused, and their message waits in a retry queue for longer than that.
//!
//! Every row is checked once, two minutes after its beginning, by its id: ids begin with their time. A row that is open then
//! gets `resume_at`, and is checked again at that time, until it is not open any more. If the sweep has closed it, it gets a
//! message once more, for its reply: perhaps the second one, which is equal. So an invite on its way changes nothing
//! here, and the check costs one short read for each row.
//!
//! `groups resume` sets `resume_at` too. While a group is paused, its rows that wait are not checked before they are too old.

use crate::{
    db::{self, kinds},
    masked::debug_shows,
};
use sqlx::PgPool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use uuid::{Builder, Uuid};

/// The age at which a row is checked first. An invite that needs no retry has ended long before.
const CHECKED_AT: Duration = Duration::from_mins(2);
/// Rows that are read, and copies that are made, in one round at most.
const READ_AT_ONCE: i64 = 10_000;
const RESUMED_AT_ONCE: i64 = 200;

/// An open invite that gets another message.
pub(crate) struct OpenInvite {
    pub(crate) id: Uuid,
    pub(crate) group_id: i64,
    pub(crate) ticket: Option<Uuid>,
    pub(crate) message_id: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) reply_to: Option<String>,
    /// The trace that it continues.
    pub(crate) traceparent: Option<String>,
    pub(crate) created_at: OffsetDateTime,
    /// Its group was resumed. If not, its time has passed without a message.
    pub(crate) after_pause: bool,
    /// Whether it goes on now. If not, it is checked again later.
    resumes: bool,
}

debug_shows!(OpenInvite { id });

/// The rows of one round.
#[derive(Debug)]
pub(crate) struct ResumeRound {
    /// The invites to go on with now.
    pub(crate) invites: Vec<OpenInvite>,
    /// Whether there may be more at once.
    pub(crate) is_full: bool,
}

/// Finds open invites that go on from their row.
#[derive(Debug, Clone)]
pub(crate) struct OpenInvites {
    pool: PgPool,
}

impl OpenInvites {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The next round. An invite is in one again later if it is still open: after two minutes, then after as long as its age.
    pub(crate) async fn take(&self) -> Result<ResumeRound, sqlx::Error> {
        let taken = db::with_time_limit(Box::pin(async {
            while mark_open(&self.pool).await? == READ_AT_ONCE {}
            take_due(&self.pool).await
        }))
        .await;
        kinds::RESUME_SESSIONS.note(&taken);
        let mut invites = taken?;
        let is_full = i64::try_from(invites.len()) == Ok(RESUMED_AT_ONCE);
        invites.retain(|invite| invite.resumes);
        Ok(ResumeRound { invites, is_full })
    }
}

/// Checks rows for the first time; answers how many. If another worker does so at this moment, none.
async fn mark_open(pool: &PgPool) -> Result<i64, sqlx::Error> {
    let until = SystemTime::now().checked_sub(CHECKED_AT).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let millis = until.and_then(|at| u64::try_from(at.as_millis()).ok()).unwrap_or_default();
    let until = Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
    sqlx::query_scalar!(
        r#"
        with marker as (select open_checked from database_marker for update skip locked),
        until as (
            -- By the database's clock too: a worker whose clock is ahead must not pass rows that are younger.
            select least($1, (lpad(to_hex((extract(epoch from now() - interval '2 minutes') * 1000)::bigint), 12, '0')
                              || '70008000000000000000')::uuid) as id
        ),
        read as (
            select s.id, s.is_open from marker cross join until cross join lateral
                   (select id, status = 'sending'
                           or (text_state in ('refused', 'unknown') and error_code in ('invite_expired', 'outcome_unknown')
                               and exists (select from steps k where k.session_id = sessions.id and k.kind = 'closed'
                                                                 and k.detail->>'by' = 'sweep'))
                           as is_open
                      from sessions where id > marker.open_checked and id < until.id order by id limit $2) s
        ),
        marked as (
            update sessions s set resume_at = now() from (select id from read where is_open offset 0) r
             where s.id = any(array[r.id])
        ),
        moved as (
            update database_marker set open_checked = case
                       when (select count(*) from read) = $2 then (select max(id::text)::uuid from read)
                       else (select id from until) end
             where exists (select from marker) and open_checked < (select id from until)
        )
        select count(*) as "count!" from read
        "#,
        until,
        READ_AT_ONCE,
    )
    .fetch_one(pool)
    .await
}

/// Takes the rows whose `resume_at` has come. Each gets a later one, as long as it is open.
async fn take_due(pool: &PgPool) -> Result<Vec<OpenInvite>, sqlx::Error> {
    sqlx::query_as!(
        OpenInvite,
        r#"
        with due as (
            select s.id, s.status = 'sending' and s.expires_at > now() and not twin.is_there as open,
                   -- The sweep has closed it, so that its sender may have no reply. A worker that closes one answers it.
                   s.text_state in ('refused', 'unknown') and s.error_code in ('invite_expired', 'outcome_unknown')
                       and exists (select from steps k where k.session_id = s.id and k.kind = 'closed'
                                                         and k.detail->>'by' = 'sweep')
                       and not twin.is_there as closed,
                   case -- Nothing comes next for it but that it gets too old.
                        when g.paused_at is not null and (s.text_state = 'waiting' or (s.looks >= 2 and s.looked_at >= s.lease_until))
                            then least(s.deadline_at, s.expires_at) + interval '1 minute'
                        -- It has waited for the end of the pause.
                        when g.resumed_at > s.updated_at
                            then greatest(s.lease_until, case when s.text_state <> 'waiting' then s.unsure_from end)
                        -- A copy waits for its time at most two minutes longer, and a look is repeated within one.
                        else greatest(s.lease_until, s.unsure_from, s.updated_at + interval '1 minute') + interval '1 minute'
                   end as over_at,
                   coalesce(g.resumed_at > s.updated_at, false) as after_pause,
                   s.status = 'sending' as waits
              from sessions s left join groups g on g.id = s.group_id
              -- Without a message id: its worker died before the row was committed, and the redelivery began another one.
             cross join lateral (select s.message_id is null and exists (
                       select from sessions o
                        where o.phone = s.phone and o.group_id = s.group_id and o.token is not null and o.id > s.id
                          and o.request_sha256 = s.request_sha256 and o.created_at < s.created_at + interval '10 minutes'
                   ) as is_there) twin
             where s.resume_at <= now() order by s.resume_at limit $1 for update of s skip locked
        ),
        moved as (
            update sessions s
               set resume_at = case when due.waits and not due.open then now() + interval '1 minute'
                                    when not due.open then null
                                    when due.over_at > now() then due.over_at
                                    else now() + greatest(interval '2 minutes', now() - s.created_at) end
              from due where s.id = any(array[due.id])
            returning s.id, s.group_id, s.ticket, s.message_id, s.correlation_id, s.reply_to, s.traceparent, s.created_at,
                      due.after_pause,
                      case when due.open then due.over_at <= now() else coalesce(due.closed, false) end as resumes
        ),
        new_steps as (
            insert into steps (session_id, kind, detail)
            select m.id, 'resumed', jsonb_build_object('after', case when m.after_pause then 'pause' else 'lost_message' end)
              from moved m
             where m.resumes and m.ticket is not null
               and (select count(*) from (select from steps k where k.session_id = m.id limit 200) kept) < 200
        )
        select id, group_id, ticket, message_id, correlation_id, reply_to, traceparent, created_at,
               after_pause as "after_pause!", resumes and ticket is not null as "resumes!"
          from moved
        "#,
        RESUMED_AT_ONCE,
    )
    .fetch_all(pool)
    .await
}
