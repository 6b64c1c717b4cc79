//! Waiting for a From number's slot, where `SMS_PER_SECOND` sets its pace.

use super::{
    Context, Envelope,
    metrics::{self, Stage},
};
use crate::{limits::Slot, trouble::Trouble};
use std::time::{Duration, Instant};

/// Waits for the From number's next slot. `None` if that takes longer than `patience`.
///
/// # Errors
///
/// [`Trouble::Stopping`] once the message is withdrawn, or the worker stops.
pub(super) async fn wait_for_slot(
    ctx: &Context,
    envelope: &Envelope,
    from_number: &str,
    patience: Option<Duration>,
) -> Result<Option<Slot>, Trouble> {
    let since = Instant::now();
    let slot = tokio::select! {
        biased;
        () = envelope.withdrawn.cancelled() => return Err(Trouble::Stopping),
        slot = ctx.limits.slot(from_number, patience) => slot,
    };
    metrics::took(Stage::Turn, since);
    envelope.trace.step("turn", since);
    slot
}
