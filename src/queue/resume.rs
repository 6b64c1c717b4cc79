//! Goes on with open invites whose message the broker has lost, and with those of a group that was resumed: each gets a copy,
//! like those in the retry queues.

use super::{metrics, publish::Publisher, settle::resumed_copy};
use crate::{
    db::StatementError,
    sessions::{OpenInvite, OpenInvites, ResumeRound},
    supervise::{Pulse, Task, keep_running},
};
use futures::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How often open invites are looked for. The first text after a pause has to go out within 5 s.
const EVERY: Duration = Duration::from_secs(2);
/// The same while there are more than one round takes. Their copies must not fill the queue before the invites of others.
const NEXT_ROUND_AFTER: Duration = Duration::from_millis(500);
/// How long the broker may take to confirm a copy.
const CONFIRMS_WITHIN: Duration = Duration::from_secs(5);

/// Looks for open invites that go on from their row, until `stop`.
pub(crate) fn resume(open: OpenInvites, publisher: Publisher, requests: String, stop: CancellationToken) {
    let task = ResumeTask { open, publisher, requests };
    keep_running(Task::Resume, stop.clone(), move |pulse| {
        let (task, stop) = (task.clone(), stop.clone());
        async move {
            stop.run_until_cancelled(task.run(pulse)).await;
        }
    });
}

#[derive(Clone)]
struct ResumeTask {
    open: OpenInvites,
    publisher: Publisher,
    requests: String,
}

impl ResumeTask {
    async fn run(self, pulse: Pulse) {
        let mut pause = EVERY;
        loop {
            pulse.idle();
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
            pause = EVERY;
            // Without a connection a copy would wait, and its invite may have ended by then.
            if !self.publisher.is_publishing() {
                continue;
            }
            pulse.step("looking for open invites that go on from their row");
            let ResumeRound { invites, is_full } = match self.open.take().await {
                Ok(round) => round,
                Err(error) => {
                    // Other tasks report a database that is away.
                    tracing::debug!(error = %error.summary(), "open invites cannot be looked for");
                    continue;
                }
            };
            if is_full {
                pause = NEXT_ROUND_AFTER;
            }
            let after_pause = invites.iter().filter(|invite| invite.after_pause).count();
            if after_pause > 0 {
                tracing::info!(invites = after_pause, "invites of a resumed group go on");
            }
            join_all(invites.iter().map(|invite| self.go_on(invite))).await;
        }
    }

    async fn go_on(&self, invite: &OpenInvite) {
        if !invite.after_pause {
            tracing::warn!(session = %invite.id, "the broker may have lost the message of an open invite; going on from its row");
            metrics::resumed();
        }
        let Some(copy) = resumed_copy(invite, self.requests.clone()) else { return };
        // If this copy is lost too, a later round makes another.
        let _ = tokio::time::timeout(CONFIRMS_WITHIN, self.publisher.publish(Arc::new(copy))).await;
    }
}
