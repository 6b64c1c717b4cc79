//! What is counted at the broker.

use super::watch::Consuming;
use crate::{invite::Reply, metrics::Metric};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::{
    sync::{Arc, LazyLock},
    time::Instant,
};

const IN_FLIGHT: &str = "session_invite_invites_in_flight";
const SECONDS: &str = "session_invite_invite_duration_seconds";
const REPLIES: &str = "session_invite_replies_total";
const REDELIVERIES: &str = "session_invite_redeliveries_total";
const RETRY_QUEUE: &str = "session_invite_retry_queue_messages_total";
const DEAD_LETTERS: &str = "session_invite_dead_letters_total";
const DISCARDED: &str = "session_invite_discarded_messages_total";
const CONNECTIONS_LOST: &str = "session_invite_broker_connections_lost_total";
const EVENTS: &str = "session_invite_events_published_total";

pub const METRICS: &[Metric] = &[
    Metric::gauge(IN_FLIGHT, &[], "Invites that the worker is working on now."),
    Metric::seconds(SECONDS, &[], "Time from the delivery of an invite until its message is settled."),
    Metric::counter(
        REPLIES,
        &["status", "code"],
        "Replies to invites, by their status and error code. A repeated request counts again.",
    ),
    Metric::counter(REDELIVERIES, &[], "Messages that the broker had delivered before."),
    Metric::counter(
        RETRY_QUEUE,
        &[],
        "Messages that were put into a retry queue: for another attempt, a look-up, or another worker's outcome.",
    ),
    Metric::counter(DEAD_LETTERS, &["kind"], "Messages that were put into the dead-letter queue, by kind."),
    Metric::counter(
        DISCARDED,
        &["kind"],
        "Messages that are not kept, since senders without a credential can cause any number of them: `undecodable` \
         messages, which the broker carries on, `dead_letter`s above the limit, and `direct_reply`s to unknown names.",
    ),
    Metric::counter(
        CONNECTIONS_LOST,
        &["connection"],
        "Connections to the broker that were lost, by their use.",
    ),
    Metric::counter(EVENTS, &["event"], "Events that were published, by event."),
];

/// What every invite counts is looked up once.
struct Usual {
    in_flight: Gauge,
    seconds: Histogram,
    sent: Counter,
}

static USUAL: LazyLock<Usual> = LazyLock::new(|| Usual {
    in_flight: gauge!(IN_FLIGHT),
    seconds: histogram!(SECONDS),
    sent: counter!(REPLIES, "status" => "sent", "code" => ""),
});

/// Makes `/metrics` show that no invite is in flight, before the first one comes.
pub fn show_in_flight() {
    USUAL.in_flight.set(0.0);
}

/// An invite that the worker is working on: counted until it is dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    since: Instant,
    consuming: Arc<Consuming>,
}

impl InFlight {
    pub fn begin(consuming: &Arc<Consuming>, redelivered: bool) -> Self {
        USUAL.in_flight.increment(1.0);
        consuming.begin();
        if redelivered {
            counter!(REDELIVERIES).increment(1);
        }
        Self { since: Instant::now(), consuming: consuming.clone() }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        USUAL.in_flight.decrement(1.0);
        self.consuming.end();
        USUAL.seconds.record(self.since.elapsed());
    }
}

pub(super) fn replied(reply: &Reply) {
    match (reply.status, reply.code) {
        ("sent", None) => USUAL.sent.increment(1),
        (status, code) => {
            counter!(REPLIES, "status" => status, "code" => code.unwrap_or_default()).increment(1);
        }
    }
}

/// A message was put into a retry queue.
pub(super) fn retried() {
    counter!(RETRY_QUEUE).increment(1);
}

/// `kind` is `request` or `reply`.
pub(super) fn dead_letter(kind: &'static str) {
    counter!(DEAD_LETTERS, "kind" => kind).increment(1);
}

/// A kind of message that is not kept, since a sender without a credential can cause it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Discarded {
    /// The broker carries it on.
    Undecodable,
    DeadLetter,
    DirectReply,
}

pub(super) fn discarded(kind: Discarded) {
    let kind = match kind {
        Discarded::Undecodable => "undecodable",
        Discarded::DeadLetter => "dead_letter",
        Discarded::DirectReply => "direct_reply",
    };
    counter!(DISCARDED, "kind" => kind).increment(1);
}

/// What a connection to the broker is for.
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
