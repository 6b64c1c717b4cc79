//! An invite whose row is there: one try, one look, or one answer at a time, as its row asks for.

use super::{
    Context, Envelope, Extent, Reply, Verdict,
    attempt::{place, try_once},
    metrics::{self, LookupResult},
    plan::{Step, Switch, look_again_after, next_step},
    turn::turn,
};
use crate::{
    failpoint,
    group::Group,
    sessions::{self, ClaimResult, Permission, Recipient, SessionRow, TextParts, opted_out, unknown},
    sms::Wanted,
    trouble::Trouble,
};
use futures::future::BoxFuture;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long another worker's outcome is waited for here, before the message waits in a retry queue.
const SOON: Duration = Duration::from_secs(2);
/// Between two looks at the outcome of another worker, whose try takes longer.
const NOT_SOON: Duration = Duration::from_secs(5);
/// Before the copy of a message that was worked alone goes on among the others.
const ALONE: Duration = Duration::from_secs(1);

/// Goes on with a row until it has an outcome, or until nothing can be done for a while. Boxed, as few invites come here
/// and each would have the room for it in its future.
pub fn pursue<'a>(
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
    let mut switch = Switch::On;
    loop {
        match next_step(&row, &ctx.policy, switch) {
            Step::Answer => {
                let lost = || Trouble::Defect("a session's row lost its outcome".to_owned());
                return Ok(Verdict::Answer(Reply::to(&row.outcome().ok_or_else(lost)?)));
            }
            // All others would wait for it too: a copy of the message waits, looks and sends.
            Step::InHand(_) | Step::Look | Step::Send if !extent.is_whole() => {
                return Ok(Verdict::Later(row.resume_after(ALONE)));
            }
            Step::InHand(_) if begun.elapsed() < SOON => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(500));
            }
            Step::InHand(left) => return Ok(Verdict::Later(row.resume_after(left.min(NOT_SOON)))),
            Step::Wait(after) => return Ok(Verdict::Later(row.resume_after(after))),
            Step::Close(result) => {
                metrics::closed(&row, &result);
                ctx.sessions.close(&row, &result).await?;
            }
            Step::Look => {
                if !look(ctx, &row).await? {
                    return Ok(Verdict::Later(row.resume_after(look_again_after(&row))));
                }
            }
            Step::Send => match send_again(ctx, envelope, &row).await? {
                SendResult::Verdict(verdict) => return Ok(verdict),
                SendResult::SwitchedOff => switch = Switch::Off,
                SendResult::RowChanged => {}
            },
            Step::GiveUp => {
                let what = format!("{} workers have died with it", row.abandoned);
                return Err(Trouble::Defect(what));
            }
        }
        row = ctx.sessions.again(row.id).await?;
    }
}

/// What came of the wish to hand a text over once more.
enum SendResult {
    Verdict(Verdict),
    /// The operator has switched the group off.
    SwitchedOff,
    /// The row has changed: it says how it goes on.
    RowChanged,
}

/// One further try, unless its group was switched off or its visitor has opted out since. Both are looked at in the
/// database, and once more by the claim, as the waits for a turn and a place may be long.
async fn send_again(ctx: &Context, envelope: &Envelope, row: &SessionRow) -> Result<SendResult, Trouble> {
    let group = group(ctx, row)?;
    let sender = ctx.sms.sender(group.options.sms_from.as_deref());
    let hashes = ctx.optouts.hashes(row.text_parts()?.phone);
    let recipient = Recipient { sender: &sender, hashes };
    match ctx.sessions.may_send(row, &recipient).await? {
        Permission::Granted => {}
        Permission::SwitchedOff => return Ok(SendResult::SwitchedOff),
        Permission::OptedOut => {
            let may_have_a_text = row.unsettled || row.unsure_unless_looked();
            let result = if may_have_a_text {
                ClaimResult::Unknown(unknown())
            } else {
                ClaimResult::Refused(opted_out())
            };
            metrics::closed(row, &result);
            ctx.sessions.close(row, &result).await?;
            return Ok(SendResult::RowChanged);
        }
    }
    let Some(slot) = turn(ctx, envelope, &sender, Some(row.time_left())).await? else {
        return Ok(SendResult::RowChanged);
    };
    let place = place(ctx, envelope).await?;
    let Some(claim) = ctx.sessions.claim(row, &recipient).await? else { return Ok(SendResult::RowChanged) };
    slot.used();
    metrics::tried_again(row);
    failpoint::hit("claimed");
    let verdict = try_once(ctx, envelope, place, claim, &group).await?;
    Ok(verdict.map_or(SendResult::RowChanged, SendResult::Verdict))
}

/// One look at the provider's list; whether it could be made.
async fn look(ctx: &Context, row: &SessionRow) -> Result<bool, Trouble> {
    let place = ctx.sms.place().await?;
    let TextParts { key, token, text, phone } = row.text_parts()?;
    let wanted = Wanted { to: phone, key, token, text, since: row.created_at };
    let found = match place.look(&wanted).await {
        Ok(found) => ctx.sessions.not_taken(row, found).await?,
        Err(error) => {
            metrics::looked_up(LookupResult::Failed);
            tracing::debug!(session = %row.id, %error, "a look failed");
            return Ok(false);
        }
    };
    failpoint::hit("looked");
    // The oldest, if there are several: that is what its visitor read first.
    let Some(ours) = found.last() else {
        metrics::looked_up(LookupResult::NotFound);
        ctx.sessions.missed(row).await?;
        return Ok(true);
    };
    metrics::looked_up(LookupResult::Found);
    if found.len() > 1 {
        sessions::metrics::duplicate_sms();
        tracing::error!(session = %row.id, texts = found.len(), "the provider's list has more than one text of it");
    }
    ctx.sessions.accepted(row.id, ours).await?;
    Ok(true)
}

/// The group of a row, as it is now: its sender may have been mended since.
fn group(ctx: &Context, row: &SessionRow) -> Result<Arc<Group>, Trouble> {
    ctx.groups.snapshot().group(row.group_id).cloned().ok_or_else(|| {
        Trouble::Defect(format!("the group {} is gone, or its templates are unusable", row.group_id))
    })
}
