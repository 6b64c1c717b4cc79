//! An invite whose row is there: one try, one look, or one answer at a time, as its row asks for.

use super::{
    Context, Envelope, Progress, Reply,
    metrics::{self, LookupResult, Stage},
    plan::{Step, Switch, after_try, look_again_after, next_step},
    turn::turn,
};
use crate::{
    db::Passing,
    failpoint,
    group::Group,
    metrics::{self, Look, Stage},
    optouts::Source,
    refusal::Code,
    sessions::{
        Claim, ClaimResult, Continuation, Permission, Recipient, SessionRow, TextParts, opted_out, unknown,
    },
    sms::{Answer, Place, Text, Wanted},
    traceparent::TraceParent,
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
    row: SessionRow,
) -> BoxFuture<'a, Result<Progress, Trouble>> {
    Box::pin(step_by_step(ctx, envelope, row))
}

async fn step_by_step(ctx: &Context, envelope: &Envelope, mut row: SessionRow) -> Result<Progress, Trouble> {
    let (begun, mut pause) = (Instant::now(), Duration::from_millis(20));
    let mut switch = Switch::On;
    loop {
        match next_step(&row, &ctx.policy, switch) {
            Step::Answer => {
                let lost = || Trouble::Defect("a session's row lost its outcome".to_owned());
                return Ok(Reply::to(&row.outcome().ok_or_else(lost)?).into());
            }
            // Whoever is worked alone waits for nobody, lest all others wait for it: a copy of it does.
            Step::InHand(_) | Step::Look | Step::Send if envelope.tries > 0 => {
                return Ok(Progress::Later(row.resume_after(ALONE)));
            }
            Step::InHand(_) if begun.elapsed() < SOON => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(500));
            }
            Step::InHand(left) => return Ok(Progress::Later(row.resume_after(left.min(NOT_SOON)))),
            Step::Wait(after) => return Ok(Progress::Later(row.resume_after(after))),
            Step::Close(result) => {
                metrics::closed(&row, &result);
                ctx.sessions.close(&row, &result).await?;
            }
            Step::Look => {
                if !look(ctx, &row).await? {
                    return Ok(Progress::Later(row.resume_after(look_again_after(&row))));
                }
            }
            Step::Send => match send_again(ctx, envelope, &row).await? {
                Tried::Answered(progress) => return Ok(progress),
                Tried::SwitchedOff => switch = Switch::Off,
                Tried::Not => {}
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
enum Tried {
    Answered(Progress),
    /// The operator has switched the group off.
    SwitchedOff,
    /// The row has changed: it says how it goes on.
    Not,
}

/// One further try, unless its group was switched off or its visitor has opted out since. Both are looked at in the
/// database, and once more by the claim, as the waits for a turn and a place may be long.
async fn send_again(ctx: &Context, envelope: &Envelope, row: &SessionRow) -> Result<Tried, Trouble> {
    let group = group(ctx, row)?;
    let sender = ctx.sms.sender(group.options.sms_from.as_deref());
    let hashes = ctx.optouts.hashes(row.text_parts()?.phone);
    let recipient = Recipient { sender: &sender, hashes };
    match ctx.sessions.may_send(row, &recipient).await? {
        Permission::Granted => {}
        Permission::SwitchedOff => return Ok(Tried::SwitchedOff),
        Permission::OptedOut => {
            let may_have_a_text = row.unsettled || row.unsure_unless_looked();
            let result = if may_have_a_text {
                ClaimResult::Unknown(unknown())
            } else {
                ClaimResult::Refused(opted_out())
            };
            metrics::closed(row, &result);
            ctx.sessions.close(row, &result).await?;
            return Ok(Tried::Not);
        }
    }
    let Some(turn) = turn(ctx, envelope, &sender, Some(row.time_left())).await? else {
        return Ok(Tried::Not);
    };
    let place = ctx.sms.place().await?;
    if envelope.withdrawn.is_cancelled() {
        return Err(Trouble::Stopping);
    }
    let Some(claim) = ctx.sessions.claim(row, &recipient).await? else { return Ok(Tried::Not) };
    turn.used();
    metrics::tried_again(row);
    failpoint::hit("claimed");
    let progress = hand_over(ctx, envelope, place, claim, &group).await?;
    Ok(progress.map_or(Tried::Not, Tried::Answered))
}

/// One try; `None` when another worker has claimed the row in the meantime.
pub async fn hand_over(
    ctx: &Context,
    envelope: &Envelope,
    place: Place,
    claim: Claim,
    group: &Group,
) -> Result<Option<Progress>, Trouble> {
    let asked_at = Instant::now();
    let answer = place.send(&message(ctx, envelope, group, &claim)).await;
    metrics::texted(&answer, asked_at);
    failpoint::hit("accepted");
    tell(&answer, &claim);
    if let Answer::Refused(refusal) = &answer
        && refusal.code == Code::OptedOut
    {
        Box::pin(remember_opt_out(ctx, group, &claim)).await;
    }
    let result = after_try(answer, &claim, &ctx.policy);
    // Continuation before it is told: a redelivery then finds the outcome.
    let answered = Instant::now();
    let recorded = ctx.sessions.record(claim, result).await?;
    metrics::took(Stage::Record, answered);
    failpoint::hit("recorded");
    Ok(match recorded {
        Continuation::Outcome(outcome) => Some(Reply::to(&outcome).into()),
        Continuation::Later(resume) => Some(Progress::Later(resume)),
        Continuation::Lost => {
            metrics::overtaken();
            None
        }
    })
}

/// The provider says that the number wants no texts from this sender: nobody asks again. If that cannot be written down
/// now, the next text is refused by the provider again.
async fn remember_opt_out(ctx: &Context, group: &Group, claim: &Claim) {
    let sender = ctx.sms.sender(group.options.sms_from.as_deref());
    match ctx.optouts.record(&sender, claim.phone.as_e164(), Source::Provider).await {
        Ok(true) => metrics::opted_out(),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(session = %claim.id, error = %error.summary(), "an opt-out is not recorded");
        }
    }
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

fn message<'a>(ctx: &Context, envelope: &Envelope, group: &'a Group, claim: &'a Claim) -> Text<'a> {
    let callback = || format!("{}/webhooks/twilio/status/{}", ctx.public_url.base, claim.id);
    Text {
        to: &claim.phone,
        from: group.options.sms_from.as_deref(),
        body: &claim.text,
        validity: claim.validity(),
        callback: ctx.public_url.callbacks.then(callback),
        trace: envelope.traceparent().map(TraceParent::child),
        write_by: claim.write_by(),
    }
}

/// What an operator has to mend, or may want to know.
fn tell(answer: &Answer, claim: &Claim) {
    match answer {
        Answer::Refused(refusal) if refusal.code == Code::ProviderMisconfigured => {
            let (group, code) = (claim.group.get(), refusal.provider_code);
            tracing::error!(group, code, "the provider refuses this group's sender: check --sms-from");
        }
        Answer::PerhapsSent { why } => {
            tracing::info!(session = %claim.id, why, "a text may have gone out");
        }
        Answer::Withheld => {
            tracing::warn!(session = %claim.id, "the claim was over before the text could be written; it was not written");
        }
        _ => {}
    }
}
