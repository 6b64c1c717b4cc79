//! One try to hand a text over: the permit, the request, and the record of its result.

use super::{
    Context, Envelope, Reply, Verdict,
    metrics::{self, Stage},
    plan::after_try,
};
use crate::{
    db::StatementError,
    failpoint,
    group::Group,
    optouts::OptOutSource,
    refusal::Code,
    sessions::{
        self, Claim, ClaimResult, Continuation, Outcome,
        steps::{Step, WaitCause},
    },
    sms::{OutgoingText, ProviderPermit, RetryReason, TryResult},
    spans::{Attributes, SpanKind},
    trouble::Trouble,
};
use std::time::Instant;

/// Waits until one more request may be sent to the provider.
///
/// # Errors
///
/// [`Trouble::Stopping`] once the message is withdrawn, or the worker stops.
pub(super) async fn wait_for_provider(ctx: &Context, envelope: &Envelope) -> Result<ProviderPermit, Trouble> {
    let since = Instant::now();
    let permit = ctx.sms.permit().await?;
    metrics::took(Stage::Place, since);
    envelope.trace.step("place", since);
    envelope.ensure_not_withdrawn()?;
    Ok(permit)
}

/// Makes one try, and records it. `None` if another worker has claimed the row in the meantime.
pub(super) async fn try_once(
    ctx: &Context,
    envelope: &Envelope,
    permit: ProviderPermit,
    mut claim: Claim,
    settings: &Group,
) -> Result<Option<Verdict>, Trouble> {
    claim.span = envelope.trace.context();
    let (sent_at, span) = (Instant::now(), envelope.trace.child());
    let text =
        OutgoingText { trace: span.or_else(|| envelope.continued_trace()), ..message(ctx, settings, &claim) };
    let answer = permit.send(&text).await;
    metrics::attempted(&answer, sent_at);
    envelope.trace.finish(span, ("provider: create a message", SpanKind::Client), sent_at, || {
        describe(&answer, &claim)
    });
    failpoint::hit("accepted");
    log(&answer, &claim);
    note_sender(ctx, settings, &answer);
    if let TryResult::Refused(refusal) = &answer
        && refusal.code == Code::OptedOut
    {
        Box::pin(remember_opt_out(ctx, settings, &claim)).await;
    }
    let step = step_of(&answer, claim.attempts, ctx.policy.max_attempts);
    let result = after_try(answer, &claim, &ctx.policy);
    let step = step.map(|step| with_next_try(step, &result));
    let (group, first_delivery) = (claim.group, claim.first_delivery);
    // Recorded before the reply: a redelivery then finds the outcome.
    let answered_at = Instant::now();
    let continuation = ctx.sessions.record(claim, result, step).await?;
    metrics::took(Stage::Record, answered_at);
    envelope.trace.step("record", answered_at);
    failpoint::hit("recorded");
    Ok(match continuation {
        Continuation::Outcome(outcome) => {
            match &outcome {
                Outcome::Sent(_) => {
                    sessions::metrics::sent_since(group, envelope.published(), first_delivery);
                }
                Outcome::Refused(refusal) => sessions::metrics::refused(Some(group), refusal.code),
            }
            Some(Verdict::Answer(Reply::to(&outcome).of_group(group)))
        }
        Continuation::Later(resume) => Some(Verdict::Later(resume)),
        Continuation::Lost => {
            metrics::claim_lost();
            None
        }
    })
}

/// Notes whether the provider takes the group's From number.
fn note_sender(ctx: &Context, group: &Group, answer: &TryResult) {
    let sender = || ctx.sms.sender(group.options.sms_from.as_deref());
    match answer {
        TryResult::Accepted { .. } => ctx.refused_senders.accepted(sender),
        TryResult::Refused(refusal) if refusal.code == Code::ProviderMisconfigured => {
            ctx.refused_senders.refused(group, sender(), refusal.provider_code);
        }
        _ => {}
    }
}

/// The step of a try that was not accepted.
fn step_of(answer: &TryResult, attempt: i32, max_attempts: u32) -> Option<Step> {
    Some(match answer {
        TryResult::Accepted { .. } => return None,
        TryResult::Refused(refusal) => Step::TryRefused {
            attempt,
            code: refusal.code.as_str().to_owned(),
            provider_code: refusal.provider_code,
        },
        TryResult::Later { status, why, .. } => {
            let (why, provider_code) = match why {
                RetryReason::Unreachable => (WaitCause::Unreachable, None),
                RetryReason::Throttled => (WaitCause::Throttled, None),
                RetryReason::Account { provider_code } => (WaitCause::Account, *provider_code),
            };
            let of = Some(max_attempts);
            Step::TryWaits { attempt, of, why, status: *status, provider_code, next_in: None }
        }
        TryResult::PerhapsSent { why } => Step::try_unknown(attempt, why),
        TryResult::Withheld => Step::TryWithheld { attempt },
    })
}

/// The step, with the time until the next try.
fn with_next_try(step: Step, result: &ClaimResult) -> Step {
    match (step, result) {
        (Step::TryWaits { attempt, of, why, status, provider_code, .. }, ClaimResult::Waiting { after }) => {
            Step::TryWaits { attempt, of, why, status, provider_code, next_in: Some(after.as_secs_f64()) }
        }
        (step, _) => step,
    }
}

/// What the span of a try shows.
fn describe(answer: &TryResult, claim: &Claim) -> (Attributes, bool) {
    let is_error = !matches!(answer, TryResult::Accepted { .. } | TryResult::Refused(_));
    let attributes = vec![
        ("http.request.method", "POST".into()),
        ("session_invite.result", metrics::result_of(answer).into()),
        ("session_invite.attempt", i64::from(claim.attempts).into()),
    ];
    (attributes, is_error)
}

/// The text, without a trace.
fn message<'a>(ctx: &Context, group: &'a Group, claim: &'a Claim) -> OutgoingText<'a> {
    let callback = || format!("{}/webhooks/twilio/status/{}", ctx.public_url.base, claim.id);
    OutgoingText {
        to: &claim.phone,
        from: group.options.sms_from.as_deref(),
        body: &claim.text,
        validity: claim.validity(),
        callback: ctx.public_url.callbacks.then(callback),
        trace: None,
        write_by: claim.write_by(),
    }
}

/// Stores that the number wants no texts from this From number, as the provider reported. If that fails, the provider
/// refuses the next text again.
async fn remember_opt_out(ctx: &Context, group: &Group, claim: &Claim) {
    let from_number = ctx.sms.sender(group.options.sms_from.as_deref());
    match ctx.optouts.record(&from_number, claim.phone.as_e164(), OptOutSource::Provider).await {
        Ok(true) => metrics::provider_optout(),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(session = %claim.id, error = %error.summary(), "an opt-out is not recorded");
        }
    }
}

/// Logs answers that an operator has to act on, or may want to know.
fn log(answer: &TryResult, claim: &Claim) {
    match answer {
        TryResult::Refused(refusal) if refusal.code == Code::ProviderMisconfigured => {
            let (group, code) = (claim.group.get(), refusal.provider_code);
            tracing::error!(group, code, "the provider refuses this group's From number: check --sms-from");
        }
        TryResult::PerhapsSent { why } => {
            tracing::info!(session = %claim.id, why, "a text may have gone out");
        }
        TryResult::Withheld => {
            tracing::warn!(session = %claim.id, "the claim was over before the text could be written; it was not written");
        }
        _ => {}
    }
}
