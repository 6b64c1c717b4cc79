//! The metrics of the table `sessions`, and of the invites' outcomes, which are decided by writing to it.

use crate::{
    group_id::GroupId,
    metrics::{
        Metric, ShownBy,
        groups::{self, GroupCounters, NONE, OTHER},
    },
    refusal::Code,
};
use metrics::{Counter, Histogram, counter, gauge, histogram};
use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const OUTCOMES: &str = "session_invite_outcomes_total";
const PUBLISH_TO_SENT: &str = "session_invite_publish_to_sent_seconds";
const PUBLISH_TO_DELIVERED: &str = "session_invite_publish_to_delivered_seconds";
const FIRST_DELIVERY_TO_SENT: &str = "session_invite_first_delivery_to_sent_seconds";
const SENT_WITHOUT_TIMESTAMP: &str = "session_invite_sent_without_timestamp_total";
const DUPLICATE_SMS: &str = "session_invite_duplicate_sms_total";
const SMS_AFTER_FAILURE_REPLY: &str = "session_invite_sms_sent_after_failure_reply_total";
const RETIRED: &str = "session_invite_sessions_retired_total";
const OUTBOX_EVENTS: &str = "session_invite_outbox_events";
const OUTBOX_AGE: &str = "session_invite_outbox_oldest_event_age_seconds";
const KEYS_HELD: &str = "session_invite_session_keys_held";
const KEY_SPACE_USED: &str = "session_invite_key_space_used_ratio";

pub(crate) const METRICS: &[Metric] = &[
    Metric::counter(
        OUTCOMES,
        "Outcomes of invites, once each, by group and code (`sent`, or the refusal's). 50 groups have a series of their own, \
         all others share `other`; `none` is where the group is not known.",
    )
    .by_all(&["group", "code"], shared_outcomes),
    Metric::published_seconds(
        PUBLISH_TO_SENT,
        "Time from a request's AMQP timestamp until the provider had its text. A timestamp has whole seconds, and the time \
         counts from the beginning of its second: up to 1 s too long.",
    ),
    Metric::published_seconds(
        PUBLISH_TO_DELIVERED,
        "Time from a request's AMQP timestamp until its receipt said delivered. A timestamp has whole seconds, and the time \
         counts from the beginning of its second: up to 1 s too long.",
    ),
    Metric::way_seconds(
        FIRST_DELIVERY_TO_SENT,
        "Time from the first delivery of a request to a worker until the provider had its text. For an invite that took more \
         than one delivery it counts from its row's creation.",
    ),
    Metric::counter(
        SENT_WITHOUT_TIMESTAMP,
        "Texts that the provider took whose request had no AMQP timestamp, or one in the future.",
    ),
    Metric::counter(DUPLICATE_SMS, "Visitors who received two texts for one invite, as far as this is known."),
    Metric::counter(
        SMS_AFTER_FAILURE_REPLY,
        "Texts that the provider sent although the reply had said that no text was sent.",
    ),
    on_worker(
        Metric::counter(RETIRED, "Old sessions that were deleted, or blanked of everything that names a person.")
            .by(&["action"], &["blanked", "deleted"]),
    ),
    on_worker(Metric::gauge(
        OUTBOX_EVENTS,
        "Events that wait to be published, up to 10,000, by the last measurement.",
    )),
    on_worker(Metric::gauge(
        OUTBOX_AGE,
        "Age of the oldest event that waits to be published, in seconds, by the last measurement.",
    )),
    on_worker(
        Metric::gauge(KEYS_HELD, "Session keys that a group holds, by the last measurement; `other` is the sum of the others.")
            .by(&["group"], &[OTHER]),
    ),
    on_worker(
        Metric::gauge(
            KEY_SPACE_USED,
            "Share of the keys of a group's --key-length that are held, by the last measurement; `other` is the largest of the \
             others.",
        )
        .by(&["group"], &[OTHER]),
    ),
];

const fn on_worker(metric: Metric) -> Metric {
    metric.shown_by(ShownBy::Worker)
}

/// `sent`, and every code of a refusal.
fn outcome_codes() -> Vec<&'static str> {
    ["sent"].into_iter().chain(Code::ALL.iter().map(|code| code.as_str())).collect()
}

fn shared_outcomes() -> Vec<Vec<&'static str>> {
    let of = |group| outcome_codes().into_iter().map(move |code| vec![group, code]);
    of(OTHER).chain(of(NONE)).collect()
}

/// Handles that are looked up once.
struct SessionMetrics {
    outcomes: GroupCounters,
    publish_to_sent: Histogram,
    publish_to_delivered: Histogram,
    first_delivery_to_sent: Histogram,
    without_timestamp: Counter,
}

static SESSION_METRICS: LazyLock<SessionMetrics> = LazyLock::new(|| SessionMetrics {
    outcomes: GroupCounters::new(OUTCOMES, "code", outcome_codes()),
    publish_to_sent: histogram!(PUBLISH_TO_SENT),
    publish_to_delivered: histogram!(PUBLISH_TO_DELIVERED),
    first_delivery_to_sent: histogram!(FIRST_DELIVERY_TO_SENT),
    without_timestamp: counter!(SENT_WITHOUT_TIMESTAMP),
});

/// Shows the outcomes of all groups that have series of their own.
pub(crate) fn show_groups() {
    SESSION_METRICS.outcomes.show_named();
}

/// An invite is refused. `group` is `None` if its sender has shown no good credential, or its group is not known.
pub(crate) fn refused(group: Option<GroupId>, code: Code) {
    let index = 1 + Code::ALL.iter().position(|known| *known == code).unwrap_or_default();
    SESSION_METRICS.outcomes.count(group.map(GroupId::get), index);
}

/// The provider has the text of an invite.
pub(crate) fn sent(group: GroupId, published: Option<SystemTime>, since_first_delivery: Duration) {
    let all = &*SESSION_METRICS;
    all.outcomes.count(Some(group.get()), 0);
    all.first_delivery_to_sent.record(since_first_delivery);
    match published {
        Some(published) => all.publish_to_sent.record(since_second_of(published)),
        None => all.without_timestamp.increment(1),
    }
}

/// The same, for a first delivery of this process.
pub(crate) fn sent_since(group: GroupId, published: Option<SystemTime>, first_delivery: Instant) {
    sent(group, published, first_delivery.elapsed());
}

/// A receipt said for the first time that a text has arrived.
pub(super) fn delivered(published: Option<SystemTime>) {
    if let Some(published) = published {
        SESSION_METRICS.publish_to_delivered.record(since_second_of(published));
    }
}

/// The time since the beginning of that moment's second; none for a moment in the future.
fn since_second_of(published: SystemTime) -> Duration {
    let seconds = published.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let second = UNIX_EPOCH + Duration::from_secs(seconds);
    second.elapsed().unwrap_or_default()
}

pub(crate) fn duplicate_sms() {
    counter!(DUPLICATE_SMS).increment(1);
}

pub(super) fn sms_after_failure_reply() {
    counter!(SMS_AFTER_FAILURE_REPLY).increment(1);
}

/// What was done with old sessions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Retirement {
    Blanked,
    Deleted,
}

pub(super) fn retired(action: Retirement, rows: u64) {
    let action = match action {
        Retirement::Blanked => "blanked",
        Retirement::Deleted => "deleted",
    };
    counter!(RETIRED, "action" => action).increment(rows);
}

/// What waits in the outbox.
#[expect(clippy::cast_precision_loss, reason = "10,000 at most")]
pub(super) fn outbox_measured(events: i64, oldest: f64) {
    gauge!(OUTBOX_EVENTS).set(events as f64);
    gauge!(OUTBOX_AGE).set(oldest);
}

/// The keys that groups hold: how many, and which share of the keys of their length. A named group that is not among them
/// holds none.
pub(super) fn keys_measured(held: &[(GroupId, u32, f64)]) {
    let (mut others, mut fullest) = (0_u32, 0.0_f64);
    let mut empty = groups::all_named();
    for (group, keys, share) in held {
        if let Some(label) = groups::label(group.get()) {
            empty.retain(|id| *id != group.get());
            show_keys(&label, *keys, *share);
        } else {
            others = others.saturating_add(*keys);
            fullest = fullest.max(*share);
        }
    }
    show_keys(OTHER, others, fullest);
    for group in empty {
        show_keys(&group.to_string(), 0, 0.0);
    }
}

fn show_keys(group: &str, keys: u32, share: f64) {
    gauge!(KEYS_HELD, "group" => group.to_owned()).set(keys);
    gauge!(KEY_SPACE_USED, "group" => group.to_owned()).set(share);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_from_the_beginning_of_the_timestamps_second() {
        let published = SystemTime::now() - Duration::from_secs(5);
        let counted = since_second_of(published).as_secs_f64();
        // A second more, and what a slow machine adds.
        assert!((5.0..15.0).contains(&counted), "{counted}");
        assert_eq!(since_second_of(SystemTime::now() + Duration::from_secs(3)), Duration::ZERO);
    }
}
