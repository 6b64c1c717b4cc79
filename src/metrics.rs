//! What is counted, in Prometheus' conventions (<https://prometheus.io/docs/practices/naming/>), for `/metrics`.

use crate::{
    group::GroupId,
    invite::Reply,
    optouts::Keyword,
    queue::Consuming,
    sessions::{Fate, Heard, Standing, Word},
    sms::Answer,
};
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::{
    sync::{Arc, LazyLock},
    time::Instant,
};
use uuid::Uuid;

const INVITES: &str = "session_invite_invites_total";
const IN_HAND: &str = "session_invite_in_hand";
const SECONDS: &str = "session_invite_invite_duration_seconds";
const TEXTS: &str = "session_invite_texts_total";
const TEXT_SECONDS: &str = "session_invite_text_duration_seconds";
const REDELIVERIES: &str = "session_invite_redeliveries_total";
const DEAD: &str = "session_invite_dead_letters_total";
const DISCARDED: &str = "session_invite_discarded_total";
const LOST: &str = "session_invite_connection_losses_total";
const STAGE_SECONDS: &str = "session_invite_stage_duration_seconds";
const LATER: &str = "session_invite_postponed_total";
const RETRIES: &str = "session_invite_retries_total";
const LOOKS: &str = "session_invite_looks_total";
const UNSURE: &str = "session_invite_unsure_settled_total";
const OVERTAKEN: &str = "session_invite_overtaken_total";
const THOUGH_TOLD_NOT: &str = "session_invite_texted_though_told_not_total";
const TWICE: &str = "session_invite_texted_twice_total";
const EVENTS: &str = "session_invite_events_total";
const OPTED_OUT: &str = "session_invite_optouts_total";
const UNUSUAL_PREFIXES: &str = "session_invite_unusual_prefixes";
const RETIRED: &str = "session_invite_sessions_retired_total";

const TASKS_ENDED: &str = "session_invite_tasks_ended_total";
const RECEIPTS: &str = "session_invite_receipts_total";
const INBOUND: &str = "session_invite_inbound_total";
const UNSIGNED: &str = "session_invite_unsigned_webhooks_total";
const REQUESTS: &str = "session_invite_http_requests_total";
const REQUEST_SECONDS: &str = "session_invite_http_request_duration_seconds";
const REQUESTS_IN_HAND: &str = "session_invite_http_requests_in_hand";

/// From a fast provider's milliseconds to a slow one's time-out.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What every invite counts is looked up once.
struct Usual {
    in_hand: Gauge,
    seconds: Histogram,
    /// In the order of [`Stage`].
    stages: [Histogram; 5],
    sent: Counter,
    accepted: Counter,
    text_seconds: Histogram,
}

static USUAL: LazyLock<Usual> = LazyLock::new(|| Usual {
    in_hand: gauge!(IN_HAND),
    seconds: histogram!(SECONDS),
    stages: ["turn", "place", "insert", "record", "reply"]
        .map(|stage| histogram!(STAGE_SECONDS, "stage" => stage)),
    sent: counter!(INVITES, "status" => "sent", "code" => ""),
    accepted: counter!(TEXTS, "answer" => "accepted"),
    text_seconds: histogram!(TEXT_SECONDS),
});

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
    USUAL.in_hand.set(0.0);
    describe_histogram!(SECONDS, Unit::Seconds, "From a delivery to its settled message.");
    describe_counter!(TEXTS, "Tries to hand over a text, by what the provider's answer means.");
    describe_histogram!(TEXT_SECONDS, Unit::Seconds, "How long the provider takes for one try.");
    describe_counter!(REDELIVERIES, "Messages that the broker had delivered before.");
    describe_counter!(DEAD, "Messages that were set aside, by kind: a request or a reply.");
    describe_counter!(
        DISCARDED,
        "What senders without a credential can cause, and is not kept: `undecodable` messages, which the broker carries \
         on, `dead_letter`s above the limit, and `direct_reply`s to names that are not known."
    );
    describe_counter!(LOST, "Connections that were lost, by what they were for.");
    describe_histogram!(STAGE_SECONDS, Unit::Seconds, "How long an invite takes in one stage of its way.");
    describe_counter!(LATER, "Messages that went to a retry queue, for a try, a look or an outcome.");
    describe_counter!(RETRIES, "Further tries that were begun, by why the one before did not do.");
    describe_counter!(
        LOOKS,
        "Looks at the provider's list for a text whose answer was lost, by their result."
    );
    describe_counter!(UNSURE, "Texts whose answer was lost, by how that was settled.");
    describe_counter!(OVERTAKEN, "Tries whose claim was over when their outcome came.");
    describe_counter!(THOUGH_TOLD_NOT, "Texts that went out after their senders were told that none did.");
    describe_counter!(TWICE, "Visitors who were texted twice, as far as it is known.");
    describe_counter!(EVENTS, "Events that were published, by what became of the session.");
    describe_counter!(OPTED_OUT, "Opt-outs that became known by the provider's refusal of a text.");
    describe_counter!(REQUESTS, "Requests that the gateway answered, by route and status.");
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "From a request's head to its answer, by route.");
    describe_gauge!(REQUESTS_IN_HAND, "Requests that the gateway has in hand now.");
    describe_counter!(RECEIPTS, "Delivery receipts, by what they say.");
    describe_counter!(INBOUND, "Texts from visitors, by their keyword.");
    describe_counter!(UNSIGNED, "Webhooks that were refused, as their signature was not the provider's.");
    describe_gauge!(UNUSUAL_PREFIXES, "Ranges of numbers that have an unusual share of a group's texts now.");
    describe_counter!(RETIRED, "Old sessions that were deleted, or blanked of what names a person.");
    describe_counter!(
        TASKS_ENDED,
        "Tasks of the process that ended unasked and were started again, by name."
    );
    Ok(handle)
}

/// An invite in hand: counted until it is dropped.
#[derive(Debug)]
pub struct InHand {
    since: Instant,
    consuming: Arc<Consuming>,
}

impl InHand {
    pub fn begin(consuming: &Arc<Consuming>, redelivered: bool) -> Self {
        USUAL.in_hand.increment(1.0);
        consuming.begin();
        if redelivered {
            counter!(REDELIVERIES).increment(1);
        }
        Self { since: Instant::now(), consuming: consuming.clone() }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        USUAL.in_hand.decrement(1.0);
        self.consuming.end();
        USUAL.seconds.record(self.since.elapsed());
    }
}

/// A stage of an invite's way.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// Until it is the sender's turn (`SMS_PER_SECOND`).
    Turn,
    /// Until a place at the provider is free.
    Place,
    Insert,
    Record,
    /// Until the broker has confirmed the reply.
    Reply,
}

/// How long a stage took that began at `since`.
pub fn took(stage: Stage, since: Instant) {
    USUAL.stages[stage as usize].record(since.elapsed());
}

pub fn answered(reply: &Reply) {
    match (reply.status, reply.code) {
        ("sent", None) => USUAL.sent.increment(1),
        (status, code) => {
            counter!(INVITES, "status" => status, "code" => code.unwrap_or_default()).increment(1);
        }
    }
}

/// One try at the provider, begun at `since`.
pub fn texted(answer: &Answer, since: Instant) {
    USUAL.text_seconds.record(since.elapsed());
    let answer = match answer {
        Answer::Accepted { .. } => return USUAL.accepted.increment(1),
        Answer::Refused(_) => "refused",
        Answer::Later { .. } => "later",
        Answer::PerhapsSent { .. } => "perhaps_sent",
        Answer::Withheld => "withheld",
    };
    counter!(TEXTS, "answer" => answer).increment(1);
}

/// `kind` is `request` or `reply`.
pub fn dead_letter(kind: &'static str) {
    counter!(DEAD, "kind" => kind).increment(1);
}

/// What is not kept, as anybody can cause it without a credential.
#[derive(Debug, Clone, Copy)]
pub enum Discarded {
    /// The broker carries it on.
    Undecodable,
    DeadLetter,
    DirectReply,
}

pub fn discarded(what: Discarded) {
    let what = match what {
        Discarded::Undecodable => "undecodable",
        Discarded::DeadLetter => "dead_letter",
        Discarded::DirectReply => "direct_reply",
    };
    counter!(DISCARDED, "what" => what).increment(1);
}

/// What a lost connection was for.
#[derive(Debug, Clone, Copy)]
pub enum Lost {
    Consumer,
    Publisher,
}

pub fn lost(what: Lost) {
    let what = match what {
        Lost::Consumer => "consumer",
        Lost::Publisher => "publisher",
    };
    counter!(LOST, "connection" => what).increment(1);
}

/// A message goes to a retry queue.
pub fn postponed() {
    counter!(LATER).increment(1);
}

/// A further try is begun.
pub fn tried_again(row: &Standing) {
    let (after, settled) = match row.text_state.as_deref() {
        Some("waiting") => ("not_taken", None),
        _ if row.is_absent() => ("absent", Some("absent")),
        _ => ("unsure", Some("resent")),
    };
    counter!(RETRIES, "after" => after).increment(1);
    if let Some(by) = settled {
        settled_by(by);
    }
}

/// The result of a look at the provider's list.
#[derive(Debug, Clone, Copy)]
pub enum Look {
    Found,
    Missed,
    /// The list could not be read.
    Failed,
}

pub fn looked(look: Look) {
    let result = match look {
        Look::Found => "found",
        Look::Missed => "missed",
        Look::Failed => "failed",
    };
    counter!(LOOKS, "result" => result).increment(1);
    if matches!(look, Look::Found) {
        settled_by("found");
    }
}

/// An invite is ended without a further try.
pub fn closed(row: &Standing, fate: &Fate) {
    if row.text_state.as_deref() != Some("waiting") {
        settled_by(if matches!(fate, Fate::Unknown(_)) { "never" } else { "absent" });
    }
}

fn settled_by(by: &'static str) {
    counter!(UNSURE, "by" => by).increment(1);
}

/// A try's outcome came after its claim was over.
pub fn overtaken() {
    counter!(OVERTAKEN).increment(1);
}

pub fn texted_twice() {
    counter!(TWICE).increment(1);
}

/// What follows from the provider's word on a session's text, told where it is bad.
pub fn heard(session: Uuid, text: &str, heard: &Heard) {
    match heard {
        Heard::Noted | Heard::NoSession => {}
        Heard::Twice { first } => {
            counter!(TWICE).increment(1);
            tracing::error!(%session, first, second = ?text, "a visitor was texted twice");
        }
        Heard::ToldNot => {
            counter!(THOUGH_TOLD_NOT).increment(1);
            tracing::error!(%session, text = ?text, "a text went out after its sender was told that none did");
        }
    }
}

/// An event that the broker has confirmed.
pub fn published(event: &str) {
    counter!(EVENTS, "event" => event.to_owned()).increment(1);
}

/// The provider refused a text to a number that was not known to have opted out.
pub fn opted_out() {
    counter!(OPTED_OUT).increment(1);
}

/// A delivery receipt.
pub fn receipt(word: Word) {
    let word = match word {
        Word::Taken => "sent",
        Word::Delivered => "delivered",
        Word::Undelivered { .. } => "undelivered",
    };
    counter!(RECEIPTS, "status" => word).increment(1);
}

/// A text from a visitor.
pub fn inbound(word: Option<Keyword>) {
    let word = match word {
        Some(Keyword::Stop) => "stop",
        Some(Keyword::Start) => "start",
        Some(Keyword::Help) => "help",
        None => "other",
    };
    counter!(INBOUND, "keyword" => word).increment(1);
}

/// A webhook whose signature is not the provider's.
pub fn unsigned() {
    counter!(UNSIGNED).increment(1);
}

/// How many ranges of numbers have an unusual share of the group's texts now.
pub fn unusual_prefixes(group: GroupId, count: usize) {
    gauge!(UNUSUAL_PREFIXES, "group" => group.to_string()).set(u32::try_from(count).unwrap_or(u32::MAX));
}

/// What became of old sessions.
#[derive(Debug, Clone, Copy)]
pub enum Retired {
    Blanked,
    Deleted,
}

pub fn retired(how: Retired, rows: u64) {
    let how = match how {
        Retired::Blanked => "blanked",
        Retired::Deleted => "deleted",
    };
    counter!(RETIRED, "how" => how).increment(rows);
}

/// A task of the process has ended unasked.
pub fn task_ended(name: &'static str) {
    counter!(TASKS_ENDED, "task" => name).increment(1);
}

/// A request that the gateway has answered; `route` is the address's pattern.
pub fn answered_http(route: &'static str, status: u16, since: Instant) {
    counter!(REQUESTS, "route" => route, "status" => status.to_string()).increment(1);
    histogram!(REQUEST_SECONDS, "route" => route).record(since.elapsed());
}

/// One more in hand, or one less.
pub fn http_in_hand(change: f64) {
    static IN_HAND: LazyLock<Gauge> = LazyLock::new(|| gauge!(REQUESTS_IN_HAND));
    IN_HAND.increment(change);
}
