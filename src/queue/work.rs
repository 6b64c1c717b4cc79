//! One message, from its delivery to the only ack.

use super::{
    ack::Acks,
    consume::{ChannelHandle, ConsumedQueue, Consumer},
    delivery,
    direct::SenderKind,
    message::Message,
    metrics::{self, InFlightGuard},
    settle::may_leave_a_dead_letter,
};
use crate::{
    failpoint,
    group_id::GroupId,
    invite::{
        Envelope, Extent, Reply, Verdict,
        door::is_from_authenticated_sender,
        metrics::{Stage, took},
        process,
    },
    refusal::{Code, Refusal},
    spans::{Attributes, SpanKind, Trace},
    trouble::Trouble,
};
use futures::FutureExt;
use lapin::message::Delivery;
use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tracing::{Instrument, Span};
use uuid::Uuid;

/// How often a suspect is processed alone before it is set aside (contract, section 8).
const MAX_TRIES: i32 = 20;
/// After so many deliveries, a request that has no row yet is set aside (contract, section 8).
const MAX_DELIVERIES_WITHOUT_A_ROW: i64 = 20;

/// A message that is being processed. If it is dropped unsettled, it goes back to the queue.
struct UnsettledMessage {
    message: Message,
    acks: Acks,
    is_settled: bool,
    _in_flight: InFlightGuard,
}

impl Drop for UnsettledMessage {
    fn drop(&mut self) {
        if !self.is_settled {
            self.acks.requeue(self.message.delivery.delivery_tag);
        }
    }
}

impl Consumer {
    pub(super) fn take(
        self: &Arc<Self>,
        delivery: Delivery,
        handle: &ChannelHandle,
    ) -> impl Future<Output = ()> + use<> {
        let (consumer, mut unsettled, span) = self.begin(delivery, handle);
        async move {
            let _together = consumer.alone_lock.read().await;
            consumer.work(&mut unsettled).await;
        }
        .instrument(span)
    }

    /// No other invite is in flight meanwhile: if this one ends the process, it takes no other with it.
    pub(super) fn take_alone(
        self: &Arc<Self>,
        delivery: Delivery,
        handle: &ChannelHandle,
    ) -> impl Future<Output = ()> + use<> {
        let (consumer, mut unsettled, span) = self.begin(delivery, handle);
        async move {
            let _alone = consumer.alone_lock.write().await;
            consumer.work(&mut unsettled).await;
        }
        .instrument(span)
    }

    fn begin(
        self: &Arc<Self>,
        mut delivery: Delivery,
        handle: &ChannelHandle,
    ) -> (Arc<Self>, Box<UnsettledMessage>, Span) {
        let mut envelope = delivery::envelope(&mut delivery);
        envelope.received = Some(Instant::now());
        envelope.published_after = self.health.empty_before().filter(|_| !delivery.redelivered);
        envelope.withdrawn = handle.lost.clone();
        let carried = envelope.traceparent();
        envelope.trace = Trace::begin(carried);
        let trace = envelope.trace.context().or(carried);
        let trace = trace.map(|trace| tracing::field::display(trace.trace_id()));
        // As a text it is escaped, so that no sender can forge a line of the log.
        let span = tracing::info_span!("invite", message_id = envelope.message_id.as_deref(), trace);
        if delivery.redelivered {
            metrics::redelivered();
        } else if let Some(timestamp) = envelope.timestamp_seconds().filter(|_| envelope.ticket.is_none()) {
            self.health.delivered_of(timestamp);
        }
        let unsettled = UnsettledMessage {
            message: Message { delivery, envelope, suspect: None },
            acks: handle.acks.clone(),
            is_settled: false,
            _in_flight: InFlightGuard::new(&self.health),
        };
        (self.clone(), Box::new(unsettled), span)
    }

    async fn work(&self, unsettled: &mut UnsettledMessage) {
        let UnsettledMessage { message, acks, is_settled, .. } = unsettled;
        let decided = AssertUnwindSafe(self.decide(message)).catch_unwind().await;
        let panicked =
            |panic: Box<dyn Any + Send>| Trouble::Defect(format!("a panic: {}", message_of(&*panic)));
        let verdict = decided.map_err(panicked).flatten().unwrap_or_else(Verdict::from);
        let sender = match &verdict {
            Verdict::Answer(reply) if reply.is_to_authenticated_sender() => SenderKind::Authenticated,
            Verdict::SetAside { .. } => Box::pin(self.sender_of(message)).await,
            _ => SenderKind::Stranger,
        };
        let verdict = if self.is_discarded(&verdict, sender) {
            let refusal = "the broker dropped this message, and it is not kept";
            Verdict::Answer(Reply::refused(&Refusal::new(Code::InternalError, refusal)))
        } else {
            verdict
        };
        match &verdict {
            Verdict::Answer(reply) => self.invites.refusal_log.note_reply(&message.envelope, reply),
            Verdict::SetAside { reply, .. } => {
                self.invites.refusal_log.note_reply(&message.envelope, reply);
            }
            Verdict::Later(_) | Verdict::Return => {}
        }
        let is_traced = message.envelope.trace.context().is_some();
        let summary = (is_traced || tracing::enabled!(tracing::Level::DEBUG)).then(|| Summary::of(&verdict));
        let decided = Instant::now();
        // The row of an anonymous request is marked once its acknowledgement is sure.
        let is_marked = message.envelope.is_anonymous()
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
                Box::pin(self.set_aside(message, (*reply, sender), reason)).await
            }
        };
        took(Stage::Reply, decided);
        if let Some(summary) = summary {
            summary.log(&message.envelope, decided, settled.is_ok());
            let trace = &message.envelope.trace;
            let publishing = ("publish the reply", SpanKind::Producer);
            trace.finish(trace.child(), publishing, decided, || (Vec::new(), settled.is_err()));
            trace.end(|| summary.describe(&message.envelope, settled.is_ok()));
        }
        if settled.is_err() {
            return;
        }
        failpoint::hit("replied");
        // After the confirmed reply. If the connection is lost, the message is delivered again, and finds its row.
        let tag = message.delivery.delivery_tag;
        let anonymous = is_marked.then(|| message.envelope.sha256());
        *is_settled = true;
        if message.suspect.is_some() {
            acks.ack_now(tag, anonymous).await;
            self.suspects.forget(&message.envelope.sha256()).await;
        } else {
            acks.ack(tag, anonymous);
        }
    }

    async fn decide(&self, message: &mut Message) -> Result<Verdict, Trouble> {
        if self.queue == ConsumedQueue::Dropped {
            self.expect_expired(message)?;
        }
        let extent = self.extent(message).await?;
        failpoint::hit_by("delivered", message.envelope.message_id.as_deref());
        process(&self.invites, &message.envelope, extent).await
    }

    /// Counts a suspect before it is processed: it may end the process.
    async fn extent(&self, message: &mut Message) -> Result<Extent, Trouble> {
        if !delivery::is_suspect(&message.delivery) {
            return Ok(Extent::Whole);
        }
        let suspect = self.suspects.count(&message.envelope.sha256()).await?;
        message.suspect = Some(suspect);
        if suspect.tries > MAX_TRIES {
            return Err(Trouble::Defect(format!("it was processed {MAX_TRIES} times, and never finished")));
        }
        Ok(match delivery::deliveries_before(&message.delivery) {
            deliveries @ MAX_DELIVERIES_WITHOUT_A_ROW.. => Extent::ExistingRow { deliveries },
            _ => Extent::RowOnly,
        })
    }

    /// Whether the message is not kept among the dead letters: any sender can publish to the dropped queue.
    fn is_discarded(&self, verdict: &Verdict, sender: SenderKind) -> bool {
        matches!(verdict, Verdict::SetAside { .. })
            && self.queue == ConsumedQueue::Dropped
            && sender == SenderKind::Stranger
            && !may_leave_a_dead_letter()
    }

    /// The sender of a request that is set aside: its verdict does not contain that.
    async fn sender_of(&self, message: &Message) -> SenderKind {
        if message.suspect.is_some_and(|suspect| suspect.tries > MAX_TRIES) {
            return SenderKind::Unknown;
        }
        let authenticated = AssertUnwindSafe(is_from_authenticated_sender(&self.invites, &message.envelope))
            .catch_unwind()
            .await;
        match authenticated {
            // A stopping worker returns the message, or sets it aside.
            Ok(Ok(true) | Err(_)) => SenderKind::Authenticated,
            Ok(Ok(false)) | Err(_) => SenderKind::Stranger,
        }
    }

    /// Marks a message that expired in the requests queue, so that it is answered as expired. Any other dropped message cannot
    /// be processed. The broker's `x-death` counts only in this queue: a publisher can write that header as well.
    fn expect_expired(&self, message: &mut Message) -> Result<(), Trouble> {
        let death = delivery::last_death(&message.delivery);
        if death.as_ref().is_some_and(|death| death.is_expiry_in(&self.names.requests)) {
            message.envelope.expired_in_queue = true;
            return Ok(());
        }
        let why = death.map_or("it has no x-death header".to_owned(), |death| {
            format!("{} in {}", death.reason, death.queue)
        });
        Err(Trouble::Defect(format!("the broker dropped it: {why}")))
    }
}

/// What the log shows of an invite at the end of a delivery.
struct Summary {
    end: &'static str,
    code: Option<&'static str>,
    group: Option<i64>,
    session: Option<Uuid>,
}

impl Summary {
    fn of(verdict: &Verdict) -> Self {
        let of_reply = |end, reply: &Reply| Self {
            end,
            code: reply.code,
            group: reply.group.map(GroupId::get),
            session: reply.session,
        };
        match verdict {
            Verdict::Answer(reply) => of_reply(reply.status, reply),
            Verdict::SetAside { reply, .. } => of_reply("set aside", reply),
            Verdict::Later(resume) => {
                Self { end: "later", code: None, group: None, session: Some(resume.session) }
            }
            Verdict::Return => Self { end: "returned", code: None, group: None, session: None },
        }
    }

    /// What the invite's span shows.
    fn describe(&self, envelope: &Envelope, settled: bool) -> (Attributes, bool) {
        let mut attributes: Attributes = vec![
            ("messaging.system", "rabbitmq".into()),
            ("messaging.operation.type", "process".into()),
            ("session_invite.end", self.end.into()),
            ("session_invite.redelivered", envelope.redelivered.into()),
        ];
        let session = self.session.map(|id| id.to_string());
        let texts = [
            ("messaging.message.id", envelope.message_id.as_deref()),
            ("session_invite.code", self.code),
            ("session_invite.session_id", session.as_deref()),
        ];
        attributes.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text?.into()))));
        attributes.extend(self.group.map(|group| ("session_invite.group", group.into())));
        (attributes, !settled || matches!(self.end, "failed" | "set aside" | "returned"))
    }

    /// `settled` is whether its reply or its copy was published.
    fn log(&self, envelope: &Envelope, decided: Instant, settled: bool) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let received = envelope.received.unwrap_or(decided);
        tracing::debug!(
            end = self.end,
            code = self.code,
            group = self.group,
            session = self.session.map(tracing::field::display),
            redelivered = envelope.redelivered,
            settled,
            decided_ms = millis(decided.saturating_duration_since(received)),
            settled_ms = millis(received.elapsed()),
            age_ms = envelope.age(SystemTime::now()).map(millis),
            "an invite's delivery ends"
        );
    }
}

/// The message of a panic.
fn message_of(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
