//! Waiting for the sender's turn, where `SMS_PER_SECOND` sets its pace.

use super::{
    Context, Envelope,
    metrics::{self, Stage},
};
use crate::{limits::Slot, trouble::Trouble};
use std::time::{Duration, Instant};

/// Waits for the sender's turn; `None` when the invite is too old before that.
pub(super) async fn turn(
    ctx: &Context,
    envelope: &Envelope,
    sender: &str,
    patience: Option<Duration>,
) -> Result<Option<Slot>, Trouble> {
    let since = Instant::now();
    let turn = tokio::select! {
        biased;
        () = envelope.withdrawn.cancelled() => return Err(Trouble::Stopping),
        turn = ctx.limits.slot(sender, patience) => turn,
    };
    metrics::took(Stage::Turn, since);
    turn
}
