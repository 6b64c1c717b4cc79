//! An invite that has its row: one try, one look or one reply at a time, as the row requires.

use super::{
    Context, Envelope, Extent, Reply, Verdict,
    attempt::{try_once, wait_for_provider},
    metrics::{self, LookupResult},
    plan::{GroupSwitch, NextStep, look_again_after, next_step},
    slot::wait_for_slot,
};
use crate::{
    failpoint,
    group::Group,
    sessions::{
        self, ClaimResult, Recipient, SendPermission, SessionRow, TextParts, opted_out,
        steps::{ClosedBy, LookFinding, Step},
        unknown,
    },
    sms::{AnyText, FoundTexts, TextSearch},
    spans::SpanKind,
    trouble::Trouble,
};
use futures::future::BoxFuture;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the worker polls the row for another worker's outcome, before the message waits in a retry queue.
const POLL_AT_MOST: Duration = Duration::from_secs(2);
/// After this, the retry copy checks again whether another worker's try has ended.
const CHECK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Delay of the retry copy of a message that was worked alone.
const AFTER_WORKED_ALONE: Duration = Duration::from_secs(1);

/// Continues with a row until it has an outcome, or until nothing can be done for a while.
///
/// Boxed: few invites come here, and otherwise every invite's future would have room for it.
pub(crate) fn pursue<'a>(
    ctx: &'a Context,
    envelope: &'a Envelope,
    extent: Extent,
    row: SessionRow,
) -> BoxFuture<'a, Result<Verdict, Trouble>> {
    Box::pin(step_by_step(ctx, envelope, extent, row))
}

async fn step_by_step(
    ctx: &Context,
    envelope: &Envelope,
    extent: Extent,
    mut row: SessionRow,
) -> Result<Verdict, Trouble> {
    let (begun, mut pause) = (Instant::now(), Duration::from_millis(20));
    let mut switch = GroupSwitch::On;
    loop {
        match next_step(&row, &ctx.policy, switch) {
            NextStep::Answer => {
                let lost = || Trouble::Defect("a session's row has no outcome any more".to_owned());
                let reply = Reply::to(&row.outcome().ok_or_else(lost)?);
                return Ok(Verdict::Answer(reply.of_group(row.group_id)));
            }
            // All other messages would wait too: a retry copy polls, looks and sends.
            NextStep::TryUnderWay(_) | NextStep::Look | NextStep::Send if !extent.is_whole() => {
                return Ok(Verdict::Later(row.resume_after(AFTER_WORKED_ALONE)));
            }
            NextStep::TryUnderWay(_) if begun.elapsed() < POLL_AT_MOST => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(500));
            }
            NextStep::TryUnderWay(left) => {
                return Ok(Verdict::Later(row.resume_after(left.min(CHECK_AGAIN_AFTER))));
            }
            NextStep::Wait(after) => return Ok(Verdict::Later(row.resume_after(after))),
            NextStep::Close(result) => {
                metrics::closed(&row, &result);
                close(ctx, &row, &result, closed(&result, false)).await?;
            }
            NextStep::Look => {
                if !look(ctx, envelope, &row).await? {
                    return Ok(Verdict::Later(row.resume_after(look_again_after(&row))));
                }
            }
            NextStep::Send => match send_again(ctx, envelope, &row).await? {
                SendResult::Verdict(verdict) => return Ok(verdict),
                SendResult::SwitchedOff => switch = GroupSwitch::Off,
                SendResult::RowChanged => {}
            },
            NextStep::GiveUp => {
                let what = format!("{} workers have died while they processed it", row.abandoned);
                return Err(Trouble::Defect(what));
            }
        }
        row = ctx.sessions.reread(row.id).await?;
    }
}

/// What came of one further try.
enum SendResult {
    Verdict(Verdict),
    /// Not made: the operator has switched the group off.
    SwitchedOff,
    /// The row has changed, and decides what comes next.
    RowChanged,
}

/// Makes one further try, unless the group was switched off or paused, or the visitor has opted out since. The database is
/// asked for all of them before the waits for a slot and the provider, and by the claim after them.
async fn send_again(ctx: &Context, envelope: &Envelope, row: &SessionRow) -> Result<SendResult, Trouble> {
    let group = group(ctx, row)?;
    let from_number = ctx.sms.sender(group.options.sms_from.as_deref());
    let hashes = ctx.optouts.hashes(row.text_parts()?.phone);
    let recipient = Recipient { sender: &from_number, hashes };
    match ctx.sessions.may_send(row, &recipient).await? {
        SendPermission::Granted => {}
        SendPermission::SwitchedOff => return Ok(SendResult::SwitchedOff),
        // Until it is too late: `groups resume` brings another copy at once.
        SendPermission::Paused => {
            ctx.sessions.note_step(row.id, &Step::Held {}).await;
            return Ok(SendResult::Verdict(Verdict::Later(row.resume_after(row.time_left()))));
        }
        SendPermission::OptedOut => {
            let may_be_sent = row.unsettled || row.may_have_been_taken();
            let result =
                if may_be_sent { ClaimResult::Unknown(unknown()) } else { ClaimResult::Refused(opted_out()) };
            metrics::closed(row, &result);
            close(ctx, row, &result, closed(&result, true)).await?;
            return Ok(SendResult::RowChanged);
        }
    }
    let Some(slot) = wait_for_slot(ctx, envelope, &from_number, Some(row.time_left())).await? else {
        return Ok(SendResult::RowChanged);
    };
    let permit = wait_for_provider(ctx, envelope).await?;
    let Some(claim) = ctx.sessions.claim(row, &recipient).await? else { return Ok(SendResult::RowChanged) };
    slot.used();
    metrics::tried_again(row);
    failpoint::hit("claimed");
    let verdict = try_once(ctx, envelope, permit, claim, &group).await?;
    Ok(verdict.map_or(SendResult::RowChanged, SendResult::Verdict))
}

/// Looks once for the text in the provider's list. Returns whether the list could be read.
async fn look(ctx: &Context, envelope: &Envelope, row: &SessionRow) -> Result<bool, Trouble> {
    let permit = ctx.sms.permit().await?;
    let since = Instant::now();
    let TextParts { key, token, text, phone } = row.text_parts()?;
    let (groups, own) = (ctx.groups.snapshot(), ctx.sms.sender(None));
    let senders = || groups.own_from_numbers().chain([&*own]).collect();
    let any = row.look_since.map(|since| AnyText { since, senders: senders() });
    let wanted = TextSearch { to: phone, key, token, text, since: row.created_at, any };
    let looked = permit.look(&wanted).await;
    let span = ("provider: look at its list", SpanKind::Client);
    envelope.trace.finish(envelope.trace.child(), span, since, || (Vec::new(), looked.is_err()));
    let (found, others) = match looked {
        Ok(FoundTexts { own, others }) => (
            ctx.sessions.without_other_sessions_texts(row, own).await?,
            ctx.sessions.without_other_sessions_texts(row, others).await?,
        ),
        Err(error) => {
            metrics::looked_up(LookupResult::Failed);
            ctx.sessions.note_step(row.id, &look_step(LookFinding::Unreadable, None)).await;
            tracing::debug!(session = %row.id, %error, "a look failed");
            return Ok(false);
        }
    };
    failpoint::hit("looked");
    // The oldest, if there are several: the visitor read that one first.
    let Some(oldest) = found.last() else {
        if !others.is_empty() {
            // Perhaps this invite's, from before the database lost its row.
            metrics::looked_up(LookupResult::PerhapsFound);
            let step = look_step(LookFinding::OtherTexts, None);
            close(ctx, row, &ClaimResult::Unknown(unknown()), step).await?;
            return Ok(true);
        }
        metrics::looked_up(LookupResult::NotFound);
        ctx.sessions.record_miss(row).await?;
        return Ok(true);
    };
    metrics::looked_up(LookupResult::Found);
    if found.len() > 1 {
        sessions::metrics::duplicate_sms();
        tracing::error!(session = %row.id, texts = found.len(), "the provider's list has more than one text of this session");
    }
    let sid = &oldest.sid;
    ctx.sessions.record_accepted(row.id, sid, &look_step(LookFinding::Text, Some(sid))).await?;
    Ok(true)
}

fn look_step(found: LookFinding, sid: Option<&String>) -> Step {
    Step::Looked { found, sid: sid.cloned() }
}

fn closed(result: &ClaimResult, opted_out: bool) -> Step {
    let code = match result {
        ClaimResult::Refused(refusal) | ClaimResult::Unknown(refusal) => refusal.code.as_str(),
        ClaimResult::Accepted { .. } | ClaimResult::Waiting { .. } | ClaimResult::Unsure { .. } => "",
    };
    Step::Closed { code: code.to_owned(), by: ClosedBy::Worker, opted_out }
}

/// Ends an invite without another try.
async fn close(ctx: &Context, row: &SessionRow, result: &ClaimResult, step: Step) -> Result<(), Trouble> {
    let is_closed = ctx.sessions.close(row, result, step).await?;
    if let (true, ClaimResult::Refused(refusal) | ClaimResult::Unknown(refusal)) = (is_closed, result) {
        sessions::metrics::refused(Some(row.group_id), refusal.code);
    }
    Ok(())
}

/// The group of a row, with its current settings: an operator may have corrected its From number.
fn group(ctx: &Context, row: &SessionRow) -> Result<Arc<Group>, Trouble> {
    ctx.groups.snapshot().group(row.group_id).cloned().ok_or_else(|| {
        Trouble::Defect(format!("the group {} was deleted, or its templates are unusable", row.group_id))
    })
}
