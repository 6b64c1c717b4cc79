//! The metrics of messages and of connections to the broker.

use super::watch::ConsumerHealth;
use crate::{
    invite::Reply,
    metrics::{Metric, ShownBy},
    refusal::Code,
};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

const IN_FLIGHT: &str = "session_invite_invites_in_flight";
const SECONDS: &str = "session_invite_delivery_duration_seconds";
const REPLIES: &str = "session_invite_replies_total";
const REDELIVERIES: &str = "session_invite_redeliveries_total";
const RETRY_QUEUE: &str = "session_invite_retry_queue_messages_total";
const RESUMED: &str = "session_invite_invites_resumed_total";
const DEAD_LETTERS: &str = "session_invite_dead_letters_total";
const DISCARDED: &str = "session_invite_discarded_messages_total";
const CONNECTIONS_LOST: &str = "session_invite_broker_connections_lost_total";
const EVENTS: &str = "session_invite_events_published_total";
const QUEUE_MESSAGES: &str = "session_invite_queue_messages";
const QUEUE_CONSUMERS: &str = "session_invite_queue_consumers";
const OLDEST_REQUEST: &str = "session_invite_requests_oldest_message_age_seconds";

pub(crate) const METRICS: &[Metric] = &[
    on_worker(Metric::gauge(IN_FLIGHT, "Invites that the worker is working on now.")),
    on_worker(Metric::step_seconds(
        SECONDS,
        "Time from one delivery of a message until that message is settled. An invite that takes several tries has several \
         deliveries: session_invite_first_delivery_to_sent_seconds has its whole time.",
    )),
    on_worker(
        Metric::counter(
            REPLIES,
            "Replies to invites, by their status and error code. A repeated request counts again.",
        )
        .by_all(&["status", "code"], every_reply),
    ),
    on_worker(Metric::counter(REDELIVERIES, "Messages that the broker had delivered before.")),
    on_worker(Metric::counter(
        RETRY_QUEUE,
        "Messages that were put into a retry queue: for another attempt, a look-up, or another worker's outcome, or the end of a pause.",
    )),
    on_worker(Metric::counter(
        RESUMED,
        "Open invites that went on from their row, as the broker may have lost their message.",
    )),
    on_worker(
        Metric::counter(DEAD_LETTERS, "Messages that were put into the dead-letter queue, by kind.")
            .by(&["kind"], &["request", "reply"]),
    ),
    on_worker(
        Metric::counter(
            DISCARDED,
            "Messages that are not kept, since senders without a credential can cause any number of them: `undecodable` \
             messages, which the broker carries on, `dead_letter`s above the limit, and `direct_reply`s to unknown names.",
        )
        .by(&["kind"], &["undecodable", "dead_letter", "direct_reply"]),
    ),
    Metric::counter(CONNECTIONS_LOST, "Connections to the broker that were lost, by their use.")
        .by(&["connection"], &["consumer", "publisher"]),
    on_worker(
        Metric::counter(EVENTS, "Events that were published, by event.")
            .by(&["event"], &["sent", "delivered", "undelivered", "joined", "expired", "ended"]),
    ),
    on_worker(
        Metric::gauge(QUEUE_MESSAGES, "Messages that wait in a queue, without those that a consumer has.")
            .by(&["queue"], QUEUES),
    ),
    on_worker(Metric::gauge(QUEUE_CONSUMERS, "Consumers of a queue.").by(&["queue"], QUEUES)),
    on_worker(Metric::gauge(
        OLDEST_REQUEST,
        "Age that the oldest message in the requests queue has at most, in seconds: since the queue was last seen empty, or \
         by the timestamp of the newest delivery, as every message behind that is younger.",
    )),
];

/// The queue of invites.
pub(super) const REQUESTS: &str = "requests";

/// The queues, by the ends of their names, in the order of [`QueueNames::measured`](super::QueueNames::measured).
pub(super) const QUEUES: &[&str] = &[
    REQUESTS,
    "replies",
    "dropped",
    "dead",
    "unreadable",
    "retry.1s",
    "retry.5s",
    "retry.30s",
    "retry.120s",
];

const fn on_worker(metric: Metric) -> Metric {
    metric.shown_by(ShownBy::Worker)
}

fn every_reply() -> Vec<Vec<&'static str>> {
    let refusals = Code::ALL.iter().map(|code| vec![Reply::status_of(*code), code.as_str()]);
    [vec![Reply::SENT, ""]].into_iter().chain(refusals).collect()
}

/// What the broker says of a queue.
pub(super) fn queue_measured(queue: &'static str, messages: u32, consumers: u32) {
    gauge!(QUEUE_MESSAGES, "queue" => queue).set(messages);
    gauge!(QUEUE_CONSUMERS, "queue" => queue).set(consumers);
}

/// The age that the oldest message in the requests queue has at most.
pub(super) fn oldest_request(age: Duration) {
    gauge!(OLDEST_REQUEST).set(age);
}

/// The metrics that every invite records, looked up once.
struct PerInviteMetrics {
    in_flight: Gauge,
    seconds: Histogram,
    sent: Counter,
}

static PER_INVITE: LazyLock<PerInviteMetrics> = LazyLock::new(|| PerInviteMetrics {
    in_flight: gauge!(IN_FLIGHT),
    seconds: histogram!(SECONDS),
    sent: counter!(REPLIES, "status" => "sent", "code" => ""),
});

/// Counts an invite as in flight until it is dropped.
#[derive(Debug)]
pub(super) struct InFlightGuard {
    since: Instant,
    consumer: Arc<ConsumerHealth>,
}

impl InFlightGuard {
    pub(super) fn new(consumer: &Arc<ConsumerHealth>) -> Self {
        PER_INVITE.in_flight.increment(1.0);
        consumer.started();
        Self { since: Instant::now(), consumer: consumer.clone() }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        PER_INVITE.in_flight.decrement(1.0);
        self.consumer.finished();
        PER_INVITE.seconds.record(self.since.elapsed());
    }
}

/// The broker delivered a message once more.
pub(super) fn redelivered() {
    counter!(REDELIVERIES).increment(1);
}

pub(super) fn replied(reply: &Reply) {
    match (reply.status, reply.code) {
        ("sent", None) => PER_INVITE.sent.increment(1),
        (status, code) => {
            counter!(REPLIES, "status" => status, "code" => code.unwrap_or_default()).increment(1);
        }
    }
}

/// A message was put into a retry queue.
pub(super) fn retried() {
    counter!(RETRY_QUEUE).increment(1);
}

/// An open invite went on from its row.
pub(super) fn resumed() {
    counter!(RESUMED).increment(1);
}

/// `kind` is `request` or `reply`.
pub(super) fn dead_letter(kind: &'static str) {
    counter!(DEAD_LETTERS, "kind" => kind).increment(1);
}

/// A kind of message that is not kept, since a sender without a credential can cause it.
#[derive(Debug, Clone, Copy)]
pub(super) enum DiscardKind {
    /// The broker carries it on to the unreadable queue.
    Undecodable,
    DeadLetter,
    DirectReply,
}

pub(super) fn discarded(kind: DiscardKind) {
    let kind = match kind {
        DiscardKind::Undecodable => "undecodable",
        DiscardKind::DeadLetter => "dead_letter",
        DiscardKind::DirectReply => "direct_reply",
    };
    counter!(DISCARDED, "kind" => kind).increment(1);
}

/// The use of a connection to the broker.
#[derive(Debug, Clone, Copy)]
pub(super) enum ConnectionUse {
    Consumer,
    Publisher,
}

pub(super) fn connection_lost(used_by: ConnectionUse) {
    let connection = match used_by {
        ConnectionUse::Consumer => "consumer",
        ConnectionUse::Publisher => "publisher",
    };
    counter!(CONNECTIONS_LOST, "connection" => connection).increment(1);
}

/// The broker has confirmed an event.
pub(super) fn event_published(event: &str) {
    counter!(EVENTS, "event" => event.to_owned()).increment(1);
}
