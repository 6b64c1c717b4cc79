//! What comes next for a text: pure, from what its row says and what the provider answered (docs/DELIVERY.md).
//!
//! **A text is handed over again only when it surely was not taken**: the provider said so, or two looks at its list
//! missed it, the last of them after the list had time to settle.

use super::group_disabled;
use crate::{
    config::WhenUnsure,
    refusal::{Code, Refusal},
    sessions::{Claim, ClaimResult, SessionRow, too_late, unknown},
    sms::{Answer, Later},
};
use std::{ops::Range, time::Duration};

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// The delays between tries, in seconds (contract, section 6); the last one again for any further try.
const DELAYS: [u64; 4] = [1, 5, 30, 120];
/// A delay is drawn out by this, so that what failed together is not tried together.
const JITTER: Range<f64> = 1.0..1.25;
/// Before the first look at the provider's list: a text is seldom in it at once.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Between looks, in seconds, as long as nothing else decides when the next one is due.
const LOOKS: [u64; 3] = [5, 30, 60];
/// Between two looks at the least.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// Workers that may have died with one invite before it is set aside.
const ABANDONED_AT_MOST: i32 = 20;
/// A wait shorter than this is over: the retry queues do not measure finer.
const AS_GOOD_AS_DUE: f64 = 0.25;

/// How often the provider is asked, and what is done when its answer is not known.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub max_attempts: u32,
    pub settle: Duration,
    pub when_unsure: WhenUnsure,
}

/// Whether the invite's group may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// As far as is known. It is looked at again before a text is handed over.
    On,
    /// The operator has switched the group off since the invite was taken.
    Off,
}

/// What to do about an invite whose row is there.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// It has its outcome, which is answered.
    Answer,
    /// Another worker is at it, or was; for so long at the most.
    InHand(Duration),
    /// Nothing can be done before that time is over.
    Wait(Duration),
    /// Look for the text of the last try in the provider's list.
    Look,
    /// Hand the text over once more.
    Send,
    /// Nothing more can be done for it.
    Close(ClaimResult),
    /// Too many workers have died with it.
    GiveUp,
}

/// What a row asks for next. A group that is switched off sends nothing more: what surely has no text is refused, and
/// what may have one is looked for, and not sent again.
pub fn next_step(row: &SessionRow, policy: &Policy, group: Switch) -> Step {
    if !row.in_hand() {
        return Step::Answer;
    }
    if row.abandoned >= ABANDONED_AT_MOST {
        return Step::GiveUp;
    }
    let over = row.session_left <= 0.0;
    if row.is_waiting() {
        return match row.lease_left {
            _ if group == Switch::Off => Step::Close(closed(row.unsettled, group_disabled())),
            _ if over || row.is_late() => Step::Close(closed(row.unsettled, too_late())),
            left if left > AS_GOOD_AS_DUE => Step::Wait(seconds(left)),
            _ => Step::Send,
        };
    }
    // Begun by a worker that may be at it still, or unknown.
    if row.unsure_for < 0.0 {
        return Step::InHand(seconds(-row.unsure_for));
    }
    let never_settled = Step::Close(ClaimResult::Unknown(unknown()));
    if over {
        return never_settled;
    }
    match policy.when_unsure {
        WhenUnsure::Resend
            if group == Switch::Off || row.is_late() || has_no_try_left(row.attempts, policy) =>
        {
            never_settled
        }
        WhenUnsure::Resend if row.lease_left > AS_GOOD_AS_DUE => Step::Wait(seconds(row.lease_left)),
        WhenUnsure::Look | WhenUnsure::Fail if !row.is_absent() => look_or_wait(row),
        // Absent, as far as the list can be trusted: not far enough to send again.
        WhenUnsure::Fail => never_settled,
        // A group that is off is told only of what is sure, and the list may lag for longer.
        WhenUnsure::Look if group == Switch::Off => never_settled,
        WhenUnsure::Look if row.is_late() => Step::Close(closed(row.unsettled, too_late())),
        WhenUnsure::Look if has_no_try_left(row.attempts, policy) => {
            Step::Close(closed(row.unsettled, unavailable(None)))
        }
        WhenUnsure::Resend | WhenUnsure::Look => Step::Send,
    }
}

fn look_or_wait(row: &SessionRow) -> Step {
    let between = BETWEEN_LOOKS.as_secs_f64();
    let due_in = match (row.looks, row.looked_ago) {
        (1.., Some(ago)) => {
            let usual = as_index(row.looks - 1, LOOKS.len());
            let usual = Duration::from_secs(LOOKS[usual]).as_secs_f64() - ago;
            // As soon as the list has had its time, the next look may be the one that decides.
            usual.min(row.lease_left).max(between - ago)
        }
        _ => FIRST_LOOK.as_secs_f64() - row.unsure_for,
    };
    if due_in <= AS_GOOD_AS_DUE { Step::Look } else { Step::Wait(seconds(due_in)) }
}

/// What the provider's answer to a try means for the session.
pub fn after_try(answer: Answer, claim: &Claim, policy: &Policy) -> ClaimResult {
    after_try_jittered(answer, claim, policy, rand::random_range(JITTER))
}

/// Pure, and whole: `jitter` is what was drawn.
fn after_try_jittered(answer: Answer, claim: &Claim, policy: &Policy, jitter: f64) -> ClaimResult {
    match answer {
        Answer::Accepted { sid } => ClaimResult::Accepted { provider_message_id: sid },
        Answer::Refused(refusal) => closed(claim.unsettled, refusal),
        Answer::Later { retry_after, why } => {
            let mut refusal = unavailable(retry_after);
            if let Later::Account { provider_code } = why {
                refusal.provider_code = provider_code;
            }
            if has_no_try_left(claim.attempts, policy) {
                return closed(claim.unsettled, refusal);
            }
            let after = delay(claim.attempts, jitter).max(retry_after.map(round_up).unwrap_or_default());
            // A sender who waits for nothing is told so at once.
            if after >= claim.left() {
                return closed(claim.unsettled, refusal);
            }
            ClaimResult::Waiting { after }
        }
        // The lease was over before a byte was written.
        Answer::Withheld => ClaimResult::Waiting { after: Duration::from_secs(1) },
        Answer::PerhapsSent { .. } => match policy.when_unsure {
            WhenUnsure::Look | WhenUnsure::Fail => {
                ClaimResult::Unsure { rest: policy.settle, again: FIRST_LOOK }
            }
            WhenUnsure::Resend => {
                let after = delay(claim.attempts, jitter);
                if has_no_try_left(claim.attempts, policy) || after >= claim.left() {
                    return ClaimResult::Unknown(unknown());
                }
                ClaimResult::Unsure { rest: after, again: after }
            }
        },
    }
}

/// Until a look that failed is made again: a provider in trouble is not asked harder.
pub fn look_again_after(row: &SessionRow) -> Duration {
    Duration::from_secs(if row.unsure_for < 60.0 { 5 } else { 30 })
}

/// Surely no text, unless one of an earlier try was never looked for.
fn closed(unsettled: bool, refusal: Refusal) -> ClaimResult {
    if unsettled { ClaimResult::Unknown(unknown()) } else { ClaimResult::Refused(refusal) }
}

fn has_no_try_left(attempts: i32, policy: &Policy) -> bool {
    u32::try_from(attempts).unwrap_or_default() >= policy.max_attempts
}

/// The delay after that many tries.
fn delay(attempts: i32, jitter: f64) -> Duration {
    let delay = DELAYS[as_index(attempts - 1, DELAYS.len())];
    Duration::from_secs(delay).mul_f64(jitter)
}

fn as_index(n: i32, length: usize) -> usize {
    usize::try_from(n).unwrap_or_default().min(length - 1)
}

fn seconds(span: f64) -> Duration {
    Duration::try_from_secs_f64(span).unwrap_or_default()
}

/// Not before the provider said.
fn round_up(after: Duration) -> Duration {
    Duration::from_secs(after.as_secs() + u64::from(after.subsec_nanos() > 0))
}

fn unavailable(retry_after: Option<Duration>) -> Refusal {
    let mut refusal =
        Refusal::new(Code::ProviderUnavailable, "the provider does not take texts now; try again later");
    refusal.retry_after_seconds = retry_after.map(|after| round_up(after).as_secs());
    refusal
}
