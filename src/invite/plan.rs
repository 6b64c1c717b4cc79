//! What comes next for a text, decided from its row and the provider's answer. Pure (docs/DELIVERY.md).
//!
//! **A text is handed over again only if the provider surely did not take it**: it answered so, or two looks at its list
//! did not find the text, the last one after the list had time to settle.

use super::group_disabled;
use crate::{
    config::WhenUnsure,
    refusal::{Code, Refusal},
    sessions::{Claim, ClaimResult, SessionRow, too_late, unknown},
    sms::{RetryReason, TryResult},
};
use std::{ops::Range, time::Duration};

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// Seconds between tries (contract, section 6). The last delay repeats. The retry queues have delays of their own
/// (`queue/topology.rs`): a copy that comes before its time waits for another round.
const TRY_DELAYS: [u64; 4] = [1, 5, 30, 120];
/// A random factor for each delay, so that invites that failed together do not retry together.
const JITTER: Range<f64> = 1.0..1.25;
/// From an unsure try to the first look at the provider's list, which seldom has a text at once.
const FIRST_LOOK_AFTER: Duration = Duration::from_secs(1);
/// Seconds between looks. The last interval repeats.
const LOOK_INTERVALS: [u64; 3] = [5, 30, 60];
/// The shortest interval between two looks, when the list has settled before the next look is due.
const SHORTEST_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Workers that may have died while they processed one invite, before it is set aside.
const MAX_ABANDONED: i32 = 20;
/// Seconds. A wait that is not longer counts as over: the retry queues are not more exact.
const TOLERANCE: f64 = 0.25;

/// How often a text is tried, and what follows when the provider's answer is unknown.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub max_attempts: u32,
    pub settle: Duration,
    pub when_unsure: WhenUnsure,
}

/// Whether the operator has switched the invite's group off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupSwitch {
    /// As far as is known. It is checked again before a text is handed over.
    On,
    /// The group was switched off after the invite had begun.
    Off,
}

/// What to do next for an invite that has its row.
#[derive(Debug, PartialEq)]
pub(crate) enum NextStep {
    /// Reply with the row's outcome.
    Answer,
    /// Wait for another worker's try, which has surely ended after this time.
    TryUnderWay(Duration),
    /// Nothing can be done before this time is over.
    Wait(Duration),
    /// Look for the text of the last try in the provider's list.
    Look,
    /// Hand the text over once more.
    Send,
    /// Close the row with this result: nothing more can be done.
    Close(ClaimResult),
    /// Set the invite aside: too many workers have died while they processed it.
    GiveUp,
}

/// Decides what comes next for a row. An invite of a group that is switched off is refused if it surely has no text. If it
/// may have one, the text is looked for, and not sent again.
pub(crate) fn next_step(row: &SessionRow, policy: &Policy, group: GroupSwitch) -> NextStep {
    if !row.is_sending() {
        return NextStep::Answer;
    }
    if row.abandoned >= MAX_ABANDONED {
        return NextStep::GiveUp;
    }
    let over = row.session_left <= 0.0;
    if row.is_waiting() {
        return match row.lease_left {
            _ if group == GroupSwitch::Off => NextStep::Close(closed(row.unsettled, group_disabled())),
            _ if over || row.is_late() => NextStep::Close(closed(row.unsettled, too_late())),
            left if left > TOLERANCE => NextStep::Wait(seconds(left)),
            _ => NextStep::Send,
        };
    }
    // A try was begun, or its result is unknown. It may still be under way.
    if row.unsure_for < 0.0 {
        return NextStep::TryUnderWay(seconds(-row.unsure_for));
    }
    let never_settled = NextStep::Close(ClaimResult::Unknown(unknown()));
    if over {
        return never_settled;
    }
    match policy.when_unsure {
        WhenUnsure::Resend
            if group == GroupSwitch::Off || row.is_late() || has_no_try_left(row.attempts, policy) =>
        {
            never_settled
        }
        WhenUnsure::Resend if row.lease_left > TOLERANCE => NextStep::Wait(seconds(row.lease_left)),
        WhenUnsure::Look | WhenUnsure::Fail if !row.is_absent() => look_or_wait(row),
        // The list did not have the text, and this policy does not trust the list enough to send again.
        WhenUnsure::Fail => never_settled,
        // A refusal claims that there surely is no text, and the list may lag for longer.
        WhenUnsure::Look if group == GroupSwitch::Off => never_settled,
        WhenUnsure::Look if row.is_late() => NextStep::Close(closed(row.unsettled, too_late())),
        WhenUnsure::Look if has_no_try_left(row.attempts, policy) => {
            NextStep::Close(closed(row.unsettled, unavailable(None)))
        }
        WhenUnsure::Resend | WhenUnsure::Look => NextStep::Send,
    }
}

fn look_or_wait(row: &SessionRow) -> NextStep {
    let shortest = SHORTEST_LOOK_INTERVAL.as_secs_f64();
    let due_in = match (row.looks, row.looked_ago) {
        (1.., Some(ago)) => {
            let interval = LOOK_INTERVALS[as_index(row.looks - 1, LOOK_INTERVALS.len())];
            let regular = Duration::from_secs(interval).as_secs_f64() - ago;
            // As soon as the list has settled, the next look may decide.
            regular.min(row.lease_left).max(shortest - ago)
        }
        _ => FIRST_LOOK_AFTER.as_secs_f64() - row.unsure_for,
    };
    if due_in <= TOLERANCE { NextStep::Look } else { NextStep::Wait(seconds(due_in)) }
}

/// Decides what the provider's answer to a try means for the session.
pub(crate) fn after_try(answer: TryResult, claim: &Claim, policy: &Policy) -> ClaimResult {
    after_try_jittered(answer, claim, policy, rand::random_range(JITTER))
}

/// As [`after_try`], with the random factor of the delay as an argument.
fn after_try_jittered(answer: TryResult, claim: &Claim, policy: &Policy, jitter: f64) -> ClaimResult {
    match answer {
        TryResult::Accepted { sid } => ClaimResult::Accepted { provider_message_id: sid },
        TryResult::Refused(refusal) => closed(claim.unsettled, refusal),
        TryResult::Later { retry_after, why, .. } => {
            let mut refusal = unavailable(retry_after);
            if let RetryReason::Account { provider_code } = why {
                refusal.provider_code = provider_code;
            }
            if has_no_try_left(claim.attempts, policy) {
                return closed(claim.unsettled, refusal);
            }
            let after = delay(claim.attempts, jitter).max(retry_after.map(round_up).unwrap_or_default());
            // The invite would be too old by then: the sender gets its reply at once.
            if after >= claim.left() {
                return closed(claim.unsettled, refusal);
            }
            ClaimResult::Waiting { after }
        }
        // The claim's time to write was over before a byte was written.
        TryResult::Withheld => ClaimResult::Waiting { after: Duration::from_secs(1) },
        TryResult::PerhapsSent { .. } => match policy.when_unsure {
            WhenUnsure::Look | WhenUnsure::Fail => {
                ClaimResult::Unsure { rest: policy.settle, again: FIRST_LOOK_AFTER }
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

/// The delay after a look that failed. It grows, to spare a provider in trouble.
pub(crate) fn look_again_after(row: &SessionRow) -> Duration {
    Duration::from_secs(if row.unsure_for < 60.0 { 5 } else { 30 })
}

/// Closes an invite whose last try surely brought no text. If an earlier try may have, the outcome is unknown.
fn closed(unsettled: bool, refusal: Refusal) -> ClaimResult {
    if unsettled { ClaimResult::Unknown(unknown()) } else { ClaimResult::Refused(refusal) }
}

fn has_no_try_left(attempts: i32, policy: &Policy) -> bool {
    u32::try_from(attempts).unwrap_or_default() >= policy.max_attempts
}

/// The delay after `attempts` tries.
fn delay(attempts: i32, jitter: f64) -> Duration {
    let delay = TRY_DELAYS[as_index(attempts - 1, TRY_DELAYS.len())];
    Duration::from_secs(delay).mul_f64(jitter)
}

fn as_index(n: i32, length: usize) -> usize {
    usize::try_from(n).unwrap_or_default().min(length - 1)
}

fn seconds(span: f64) -> Duration {
    Duration::try_from_secs_f64(span).unwrap_or_default()
}

/// Whole seconds, and never less than the provider asked for.
fn round_up(after: Duration) -> Duration {
    Duration::from_secs(after.as_secs() + u64::from(after.subsec_nanos() > 0))
}

fn unavailable(retry_after: Option<Duration>) -> Refusal {
    let mut refusal =
        Refusal::new(Code::ProviderUnavailable, "the provider does not take texts now; try again later");
    refusal.retry_after_seconds = retry_after.map(|after| round_up(after).as_secs());
    refusal
}
