//! One message, from its delivery to the only ack.

use super::{
    ack::Acks,
    consume::{Consumer, Hold, Source},
    delivery,
    direct::Sender,
    metrics::InFlight,
    settle::may_leave_a_dead_letter,
};
use crate::{
    failpoint,
    invite::{
        Envelope, Progress, Reply, Verdict,
        door::is_from_authenticated,
        metrics::{Stage, took},
        process,
        verdict::verdict,
    },
    refusal::{Code, Refusal},
    trouble::Trouble,
};
use futures::FutureExt;
use lapin::message::Delivery;
use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Instant};
use tracing::{Instrument, Span};

/// How often a request that comes again and again is worked alone before it is set aside (contract, section 8).
const TRIES_AT_MOST: i32 = 20;

/// A message in hand. Dropped unsettled, whatever the reason, it goes back to the queue.
struct InHand {
    delivery: Delivery,
    envelope: Envelope,
    acks: Acks,
    settled: bool,
    _counted: InFlight,
}

impl Drop for InHand {
    fn drop(&mut self) {
        if !self.settled {
            self.acks.give_back(self.delivery.delivery_tag);
        }
    }
}

impl Consumer {
    pub(super) fn take(
        self: &Arc<Self>,
        delivery: Delivery,
        hold: &Hold,
    ) -> impl Future<Output = ()> + use<> {
        let (consumer, mut invite, span) = self.begin(delivery, hold);
        async move {
            let _together = consumer.gate.read().await;
            consumer.work(&mut invite).await;
        }
        .instrument(span)
    }

    /// Nothing else is in hand meanwhile: if it takes the process down, it takes nothing with it.
    pub(super) fn take_alone(
        self: &Arc<Self>,
        delivery: Delivery,
        hold: &Hold,
    ) -> impl Future<Output = ()> + use<> {
        let (consumer, mut invite, span) = self.begin(delivery, hold);
        async move {
            let _alone = consumer.gate.write().await;
            consumer.work(&mut invite).await;
        }
        .instrument(span)
    }

    fn begin(self: &Arc<Self>, mut delivery: Delivery, hold: &Hold) -> (Arc<Self>, Box<InHand>, Span) {
        let mut envelope = delivery::envelope(&mut delivery);
        envelope.received = Some(Instant::now());
        envelope.withdrawn = hold.lost.clone();
        let trace = envelope.traceparent().map(|trace| tracing::field::display(trace.trace_id()));
        // Debug, as it escapes: no sender forges a line of the log.
        let span = tracing::info_span!("invite", message_id = ?envelope.message_id, trace);
        // From here on, whatever it waits for.
        let counted = InFlight::begin(&self.consuming, delivery.redelivered);
        let invite =
            InHand { delivery, envelope, acks: hold.acks.clone(), settled: false, _counted: counted };
        (self.clone(), Box::new(invite), span)
    }

    async fn work(&self, invite: &mut InHand) {
        let InHand { delivery, envelope, acks, settled: is_settled, .. } = invite;
        let unfit = (self.source == Source::Dropped).then(|| self.why_dropped(delivery, envelope)).flatten();
        let result = match unfit {
            Some(trouble) => Err(trouble),
            None => AssertUnwindSafe(self.try_it(delivery, envelope))
                .catch_unwind()
                .await
                .unwrap_or_else(|panic| Err(Trouble::Defect(format!("a panic: {}", said(&*panic))))),
        };
        let verdict = verdict(result);
        let sender = match &verdict {
            Verdict::Answer(reply) if reply.is_to_authenticated() => Sender::Authenticated,
            Verdict::SetAside { .. } => Box::pin(self.sender(envelope)).await,
            _ => Sender::Stranger,
        };
        let verdict = match verdict {
            // Anybody can publish to the queue of what the broker dropped.
            Verdict::SetAside { .. }
                if self.source == Source::Dropped
                    && sender == Sender::Stranger
                    && !may_leave_a_dead_letter() =>
            {
                let message = "the broker dropped this message, and it is not kept";
                Verdict::Answer(Reply::refused(&Refusal::new(Code::InternalError, message)))
            }
            verdict => verdict,
        };
        let decided = Instant::now();
        // Only such a row waits for its acknowledgement.
        let waits = envelope.is_anonymous()
            && match &verdict {
                Verdict::Answer(reply) => reply.has_row,
                Verdict::Later(_) => true,
                Verdict::SetAside { .. } | Verdict::Return => false,
            };
        let settled = match verdict {
            Verdict::Return => Err(Trouble::Stopping),
            Verdict::Answer(reply) => self.answer(envelope, reply, sender).await,
            Verdict::Later(resume) => Box::pin(self.hand_on(delivery, envelope, resume)).await,
            Verdict::SetAside { reply, reason } => {
                Box::pin(self.set_aside(delivery, envelope, (reply, sender), reason)).await
            }
        };
        took(Stage::Reply, decided);
        if settled.is_err() {
            return;
        }
        failpoint::hit("replied");
        // After the confirmed reply. On a lost connection the message comes again, and finds its row.
        let (tag, anonymous) = (delivery.delivery_tag, waits.then(|| envelope.sha256()));
        *is_settled = true;
        if envelope.tries > 0 {
            acks.done_now(tag, anonymous).await;
            self.invites.suspects.settled(&envelope.sha256()).await;
        } else {
            acks.done(tag, anonymous);
        }
    }

    /// A message that came often before is counted before it is worked on: it may be what ends the process.
    async fn try_it(&self, delivery: &Delivery, envelope: &mut Envelope) -> Result<Progress, Trouble> {
        if delivery::is_suspect(delivery) {
            let tried = self.invites.suspects.begin(&envelope.sha256()).await?;
            envelope.tries = tried.tries;
            envelope.first_at = Some(tried.first_at);
            if tried.tries > TRIES_AT_MOST {
                let what = format!("it was worked {TRIES_AT_MOST} times, and never to an end");
                return Err(Trouble::Defect(what));
            }
        }
        failpoint::hit_by("delivered", envelope.message_id.as_deref());
        process(&self.invites, envelope).await
    }

    /// Whose request it is that is set aside: nothing of its outcome says so.
    async fn sender(&self, envelope: &Envelope) -> Sender {
        if envelope.tries > TRIES_AT_MOST {
            return Sender::Unknown;
        }
        let asked = AssertUnwindSafe(is_from_authenticated(&self.invites, envelope)).catch_unwind().await;
        match asked {
            // A stopping worker gives the message back, or sets it aside.
            Ok(Ok(true) | Err(_)) => Sender::Authenticated,
            Ok(Ok(false)) | Err(_) => Sender::Stranger,
        }
    }

    /// Marks what expired in the queue of requests, to be answered so; anything else is nothing to work on. Only here
    /// does the broker's `x-death` count: a publisher can write that header too.
    fn why_dropped(&self, delivery: &Delivery, envelope: &mut Envelope) -> Option<Trouble> {
        let death = delivery::last_death(delivery);
        envelope.expired_in_queue =
            death.as_ref().is_some_and(|death| death.is_expiry_in(&self.names.requests));
        let why = death
            .map_or("nothing says why".to_owned(), |death| format!("{} in {}", death.reason, death.queue));
        (!envelope.expired_in_queue).then(|| Trouble::Defect(format!("the broker dropped it: {why}")))
    }
}

/// What a panic says, without what it holds.
fn said(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
