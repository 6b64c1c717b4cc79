//! Changes the status of sessions whose time is over: unjoined ones expire, joined ones end, and keys are released after
//! their rest.

use super::{
    metrics,
    refusals::{too_late, unknown},
    statements::SEEN_AS_UNKNOWN,
};
use crate::{
    db::{self, ErrorAction, kinds},
    group_id::GroupId,
    refusal::{Code, Refusal},
    supervise::{Pulse, Task, TaskHandle, keep_running},
};
use sqlx::{PgPool, types::Json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Rows in one statement: few enough that no invite waits for it.
const BATCH: i64 = 500;
/// How often a worker sweeps. Several workers take different rows (`skip locked`).
const EVERY: Duration = Duration::from_secs(1);

/// Sweeps until `stop`. While the database is away it tries again later; other tasks report that.
pub(crate) fn sweep(pool: PgPool, stop: CancellationToken) -> TaskHandle {
    keep_running(Task::Sweep, stop.clone(), move |pulse| run(pool.clone(), stop.clone(), pulse))
}

async fn run(pool: PgPool, stop: CancellationToken, pulse: Pulse) {
    loop {
        pulse.step("sweeping sessions whose time is over");
        let stepped = db::with_time_limit(Box::pin(step(&pool))).await;
        kinds::SWEEP.note(&stepped);
        let pause = match stepped {
            // A full batch: there is more to do, but invites come first.
            Ok(moved) if moved == BATCH => Duration::from_millis(20),
            Ok(_) => EVERY.mul_f64(rand::random_range(0.8..1.2)),
            Err(error) => {
                if db::action(&error) == ErrorAction::Refuse {
                    tracing::error!(%error, "the sweep of sessions failed");
                }
                EVERY * 5
            }
        };
        pulse.idle();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Sweeps one batch, by the index on `due_at`; answers how many rows it changed.
pub(crate) async fn step(pool: &PgPool) -> Result<i64, sqlx::Error> {
    let swept = sqlx::query!(
        r#"
        with due as (
            select id, group_id, status, joined_at is not null as joined,
                   case when status <> 'sending' then 'settled'
                        when lease_until > now() then 'in flight'
                        -- The message that would have settled it is lost or late.
                        when text_state = 'waiting' and not unsettled then 'not texted'
                        else 'unsure' end as fate
              from sessions where key_held and due_at <= now() order by due_at limit $1 for update skip locked
        ),
        moved as (
            update sessions s
               set status = case due.fate
                       when 'in flight' then s.status
                       when 'not texted' then case when due.joined then 'ended' else 'failed' end
                       when 'unsure' then case when s.joined_at is null then 'unknown' else 'joined' end
                       else case when s.status in ('expired', 'ended') then s.status
                                 when s.status = 'joined' then 'ended'
                                 else 'expired' end end,
                   text_state = case due.fate when 'not texted' then 'refused' when 'unsure' then 'unknown' else s.text_state end,
                   error_code = case due.fate
                       when 'not texted' then 'invite_expired' when 'unsure' then 'outcome_unknown' else s.error_code end,
                   error = case due.fate when 'not texted' then $2 when 'unsure' then $3 else s.error end,
                   ended_at = case when due.fate in ('in flight', 'unsure') or s.status in ('expired', 'ended') then s.ended_at
                                   else now() end,
                   key_held = (due.fate <> 'not texted' or due.joined) and s.status not in ('expired', 'ended'),
                   session_key = case when due.fate <> 'not texted' or due.joined then s.session_key end,
                   token = case when due.fate <> 'not texted' then s.token end,
                   due_at = case
                       when due.fate = 'in flight' then greatest(s.lease_until, now() + interval '1 second')
                       when due.fate = 'unsure' then now() + make_interval(secs => $4)
                       when (due.fate = 'not texted' and not due.joined) or s.status in ('expired', 'ended') then null
                       else now() + make_interval(secs => coalesce(g.key_rest, 86400)) end,
                   updated_at = now()
              from due left join groups g on g.id = due.group_id
             where s.id = any(array[due.id])
            returning s.id, s.group_id, s.session_key, s.status, s.error_code, due.status as was, due.fate
        ),
        new_events as (
            insert into events (session_id, group_id, session_key, event)
            select id, group_id, session_key, status from moved where status in ('expired', 'ended') and status <> was
        ),
        new_steps as (
            insert into steps (session_id, kind, detail)
            select m.id, 'closed', jsonb_build_object('code', m.error_code, 'by', 'sweep', 'optedOut', false)
              from moved m
             -- However many there are: by this one, `resume.rs` knows that no worker has answered it.
             where m.fate in ('not texted', 'unsure')
        )
        select count(*) as "count!",
               coalesce(array_agg(group_id) filter (where fate = 'not texted'), '{}') as "too_late!: Vec<GroupId>",
               coalesce(array_agg(group_id) filter (where fate = 'unsure'), '{}') as "unknown!: Vec<GroupId>"
          from moved
        "#,
        BATCH,
        Json(too_late()) as Json<Refusal>,
        Json(unknown()) as Json<Refusal>,
        SEEN_AS_UNKNOWN.as_secs_f64(),
    )
    .fetch_one(pool)
    .await?;
    swept.too_late.iter().for_each(|group| metrics::refused(Some(*group), Code::InviteExpired));
    swept.unknown.iter().for_each(|group| metrics::refused(Some(*group), Code::OutcomeUnknown));
    Ok(swept.count)
}
