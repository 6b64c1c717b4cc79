//! What is counted, in Prometheus' conventions (<https://prometheus.io/docs/practices/naming/>), for `/metrics`.

use crate::{invite::Reply, sms::Answer};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Instant;

const INVITES: &str = "session_invite_invites_total";
const IN_HAND: &str = "session_invite_in_hand";
const SECONDS: &str = "session_invite_invite_duration_seconds";
const TEXTS: &str = "session_invite_texts_total";
const TEXT_SECONDS: &str = "session_invite_text_duration_seconds";
const REDELIVERIES: &str = "session_invite_redeliveries_total";
const DEAD: &str = "session_invite_dead_letters_total";
const LOST: &str = "session_invite_consumer_losses_total";

/// From a fast provider's milliseconds to a slow one's time-out.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Starts counting; before this, and in commands that never call it, counting does nothing.
pub fn start() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .install_recorder()?;
    describe_counter!(
        INVITES,
        "Invites answered, by status and by the refusal's code; repeats count as well."
    );
    describe_gauge!(IN_HAND, "Invites in hand now.");
    describe_histogram!(SECONDS, Unit::Seconds, "From a delivery to its settled message.");
    describe_counter!(TEXTS, "Tries to hand over a text, by what the provider's answer means.");
    describe_histogram!(TEXT_SECONDS, Unit::Seconds, "How long the provider takes for one try.");
    describe_counter!(REDELIVERIES, "Messages that the broker had delivered before.");
    describe_counter!(DEAD, "Messages that were set aside, by kind: a request or a reply.");
    describe_counter!(LOST, "Times that a consumer lost its connection, channel or queue.");
    Ok(handle)
}

/// An invite in hand: counted until it is dropped.
#[derive(Debug)]
pub struct InHand {
    since: Instant,
}

impl InHand {
    pub fn begin(redelivered: bool) -> Self {
        gauge!(IN_HAND).increment(1.0);
        if redelivered {
            counter!(REDELIVERIES).increment(1);
        }
        Self { since: Instant::now() }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        gauge!(IN_HAND).decrement(1.0);
        histogram!(SECONDS).record(self.since.elapsed());
    }
}

pub fn answered(reply: &Reply) {
    counter!(INVITES, "status" => reply.status, "code" => reply.code.unwrap_or_default()).increment(1);
}

/// One try at the provider, begun at `since`.
pub fn texted(answer: &Answer, since: Instant) {
    let answer = match answer {
        Answer::Accepted { .. } => "accepted",
        Answer::Refused(_) => "refused",
        Answer::Later { .. } => "later",
        Answer::PerhapsSent { .. } => "perhaps_sent",
    };
    counter!(TEXTS, "answer" => answer).increment(1);
    histogram!(TEXT_SECONDS).record(since.elapsed());
}

/// `kind` is `request` or `reply`.
pub fn dead_letter(kind: &'static str) {
    counter!(DEAD, "kind" => kind).increment(1);
}

pub fn consumer_lost() {
    counter!(LOST).increment(1);
}
