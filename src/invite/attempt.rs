//! One try to hand a text over: a place at the provider, the request, what came of it.

use super::{
    Context, Envelope, Reply, Verdict,
    metrics::{self, Stage},
    plan::after_try,
};
use crate::{
    db::Passing,
    failpoint,
    group::Group,
    optouts::Source,
    refusal::Code,
    sessions::{Claim, Continuation},
    sms::{Answer, Place, Text},
    traceparent::TraceParent,
    trouble::Trouble,
};
use std::time::Instant;

/// Waits for a place at the provider, for as long as the message is ours.
pub async fn place(ctx: &Context, envelope: &Envelope) -> Result<Place, Trouble> {
    let since = Instant::now();
    let place = ctx.sms.place().await?;
    metrics::took(Stage::Place, since);
    envelope.ensure_held()?;
    Ok(place)
}

/// One try; `None` when another worker has claimed the row in the meantime.
pub async fn try_once(
    ctx: &Context,
    envelope: &Envelope,
    place: Place,
    claim: Claim,
    group: &Group,
) -> Result<Option<Verdict>, Trouble> {
    let asked_at = Instant::now();
    let answer = place.send(&message(ctx, envelope, group, &claim)).await;
    metrics::attempted(&answer, asked_at);
    failpoint::hit("accepted");
    tell(&answer, &claim);
    if let Answer::Refused(refusal) = &answer
        && refusal.code == Code::OptedOut
    {
        Box::pin(remember_opt_out(ctx, group, &claim)).await;
    }
    let result = after_try(answer, &claim, &ctx.policy);
    // Recorded before it is told: a redelivery then finds the outcome.
    let answered = Instant::now();
    let recorded = ctx.sessions.record(claim, result).await?;
    metrics::took(Stage::Record, answered);
    failpoint::hit("recorded");
    Ok(match recorded {
        Continuation::Outcome(outcome) => Some(Verdict::Answer(Reply::to(&outcome))),
        Continuation::Later(resume) => Some(Verdict::Later(resume)),
        Continuation::Lost => {
            metrics::claim_lost();
            None
        }
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

/// The provider says that the number wants no texts from this sender: nobody asks again. If that cannot be written down
/// now, the next text is refused by the provider again.
async fn remember_opt_out(ctx: &Context, group: &Group, claim: &Claim) {
    let sender = ctx.sms.sender(group.options.sms_from.as_deref());
    match ctx.optouts.record(&sender, claim.phone.as_e164(), Source::Provider).await {
        Ok(true) => metrics::provider_optout(),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(session = %claim.id, error = %error.summary(), "an opt-out is not recorded");
        }
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
