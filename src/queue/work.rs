//! One message, from its delivery to the only ack.

use super::{
    ack::Acks,
    consume::{Consumer, Hold, Source},
    delivery,
    direct::Sender,
    message::Message,
    metrics::InFlight,
    settle::may_leave_a_dead_letter,
};
use crate::{
    failpoint,
    invite::{
        Extent, Reply, Verdict,
        door::is_from_authenticated,
        metrics::{Stage, took},
        process,
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
/// A request that no worker got as far as its row is set aside after so many deliveries (contract, section 8).
const DELIVERIES_WITHOUT_A_ROW: i64 = 20;

/// A message in hand. Dropped unsettled, whatever the reason, it goes back to the queue.
struct HeldMessage {
    message: Message,
    acks: Acks,
    settled: bool,
    _counted: InFlight,
}

impl Drop for HeldMessage {
    fn drop(&mut self) {
        if !self.settled {
            self.acks.give_back(self.message.delivery.delivery_tag);
        }
    }
}

impl Consumer {
    pub(super) fn take(
        self: &Arc<Self>,
        delivery: Delivery,
        hold: &Hold,
    ) -> impl Future<Output = ()> + use<> {
        let (consumer, mut held, span) = self.begin(delivery, hold);
        async move {
            let _together = consumer.gate.read().await;
            consumer.work(&mut held).await;
        }
        .instrument(span)
    }

    /// Nothing else is in hand meanwhile: if it takes the process down, it takes nothing with it.
    pub(super) fn take_alone(
        self: &Arc<Self>,
        delivery: Delivery,
        hold: &Hold,
    ) -> impl Future<Output = ()> + use<> {
        let (consumer, mut held, span) = self.begin(delivery, hold);
        async move {
            let _alone = consumer.gate.write().await;
            consumer.work(&mut held).await;
        }
        .instrument(span)
    }

    fn begin(self: &Arc<Self>, mut delivery: Delivery, hold: &Hold) -> (Arc<Self>, Box<HeldMessage>, Span) {
        let mut envelope = delivery::envelope(&mut delivery);
        envelope.received = Some(Instant::now());
        envelope.withdrawn = hold.lost.clone();
        let trace = envelope.traceparent().map(|trace| tracing::field::display(trace.trace_id()));
        // Debug, as it escapes: no sender forges a line of the log.
        let span = tracing::info_span!("invite", message_id = ?envelope.message_id, trace);
        // From here on, whatever it waits for.
        let counted = InFlight::begin(&self.consuming, delivery.redelivered);
        let message = Message { delivery, envelope, tried: None };
        let held = HeldMessage { message, acks: hold.acks.clone(), settled: false, _counted: counted };
        (self.clone(), Box::new(held), span)
    }

    async fn work(&self, held: &mut HeldMessage) {
        let HeldMessage { message, acks, settled: is_settled, .. } = held;
        let decided = AssertUnwindSafe(self.decide(message)).catch_unwind().await;
        let panicked = |panic: Box<dyn Any + Send>| Trouble::Defect(format!("a panic: {}", said(&*panic)));
        let verdict = decided.map_err(panicked).flatten().unwrap_or_else(Verdict::from);
        let sender = match &verdict {
            Verdict::Answer(reply) if reply.is_to_authenticated() => Sender::Authenticated,
            Verdict::SetAside { .. } => Box::pin(self.sender(message)).await,
            _ => Sender::Stranger,
        };
        let verdict = if self.is_discarded(&verdict, sender) {
            let refusal = "the broker dropped this message, and it is not kept";
            Verdict::Answer(Reply::refused(&Refusal::new(Code::InternalError, refusal)))
        } else {
            verdict
        };
        let decided = Instant::now();
        // Only such a row waits for its acknowledgement.
        let waits = message.envelope.is_anonymous()
            && match &verdict {
                Verdict::Answer(reply) => reply.has_row,
                Verdict::Later(_) => true,
                Verdict::SetAside { .. } | Verdict::Return => false,
            };
        let settled = match verdict {
            Verdict::Return => Err(Trouble::Stopping),
            Verdict::Answer(reply) => self.answer(&message.envelope, reply, sender).await,
            Verdict::Later(resume) => Box::pin(self.hand_on(message, resume)).await,
            Verdict::SetAside { reply, reason } => {
                Box::pin(self.set_aside(message, (reply, sender), reason)).await
            }
        };
        took(Stage::Reply, decided);
        if settled.is_err() {
            return;
        }
        failpoint::hit("replied");
        // After the confirmed reply. On a lost connection the message comes again, and finds its row.
        let tag = message.delivery.delivery_tag;
        let anonymous = waits.then(|| message.envelope.sha256());
        *is_settled = true;
        if message.tried.is_some() {
            acks.done_now(tag, anonymous).await;
            self.suspects.settled(&message.envelope.sha256()).await;
        } else {
            acks.done(tag, anonymous);
        }
    }

    async fn decide(&self, message: &mut Message) -> Result<Verdict, Trouble> {
        if self.source == Source::Dropped {
            self.expect_expired(message)?;
        }
        let extent = self.extent(message).await?;
        failpoint::hit_by("delivered", message.envelope.message_id.as_deref());
        process(&self.invites, &message.envelope, extent).await
    }

    /// A message that came often before is counted before it is worked on: it may be what ends the process.
    async fn extent(&self, message: &mut Message) -> Result<Extent, Trouble> {
        if !delivery::is_suspect(&message.delivery) {
            return Ok(Extent::Whole);
        }
        let tried = self.suspects.begin(&message.envelope.sha256()).await?;
        message.tried = Some(tried);
        if tried.tries > TRIES_AT_MOST {
            let what = format!("it was worked {TRIES_AT_MOST} times, and never to an end");
            return Err(Trouble::Defect(what));
        }
        Ok(match delivery::deliveries_before(&message.delivery) {
            deliveries @ DELIVERIES_WITHOUT_A_ROW.. => Extent::ExistingRow { deliveries },
            _ => Extent::RowOnly,
        })
    }

    /// Whether it is not kept: anybody can publish to the queue of what the broker dropped.
    fn is_discarded(&self, verdict: &Verdict, sender: Sender) -> bool {
        matches!(verdict, Verdict::SetAside { .. })
            && self.source == Source::Dropped
            && sender == Sender::Stranger
            && !may_leave_a_dead_letter()
    }

    /// Whose request it is that is set aside: nothing of its outcome says so.
    async fn sender(&self, message: &Message) -> Sender {
        if message.tried.is_some_and(|tried| tried.tries > TRIES_AT_MOST) {
            return Sender::Unknown;
        }
        let asked =
            AssertUnwindSafe(is_from_authenticated(&self.invites, &message.envelope)).catch_unwind().await;
        match asked {
            // A stopping worker gives the message back, or sets it aside.
            Ok(Ok(true) | Err(_)) => Sender::Authenticated,
            Ok(Ok(false)) | Err(_) => Sender::Stranger,
        }
    }

    /// Marks what expired in the queue of requests, to be answered so; anything else is nothing to work on. Only here
    /// does the broker's `x-death` count: a publisher can write that header too.
    fn expect_expired(&self, message: &mut Message) -> Result<(), Trouble> {
        let death = delivery::last_death(&message.delivery);
        if death.as_ref().is_some_and(|death| death.is_expiry_in(&self.names.requests)) {
            message.envelope.expired_in_queue = true;
            return Ok(());
        }
        let why = death
            .map_or("nothing says why".to_owned(), |death| format!("{} in {}", death.reason, death.queue));
        Err(Trouble::Defect(format!("the broker dropped it: {why}")))
    }
}

/// What a panic says, without what it holds.
fn said(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
