//! What the gateway counts.

use crate::{metrics::Metric, optouts::Keyword, sessions::Word};
use metrics::{Gauge, counter, gauge, histogram};
use std::{sync::LazyLock, time::Instant};

const REQUESTS: &str = "session_invite_http_requests_total";
const REQUEST_SECONDS: &str = "session_invite_http_request_duration_seconds";
const REQUESTS_IN_FLIGHT: &str = "session_invite_http_requests_in_flight";
const RECEIPTS: &str = "session_invite_delivery_receipts_total";
const INBOUND_SMS: &str = "session_invite_inbound_sms_total";
const SIGNATURE_FAILURES: &str = "session_invite_webhook_signature_failures_total";

pub const METRICS: &[Metric] = &[
    Metric::counter(
        REQUESTS,
        &["route", "status"],
        "Requests that the gateway answered, by route and HTTP status.",
    ),
    Metric::seconds(REQUEST_SECONDS, &["route"], "Time from a request's head to its answer, by route."),
    Metric::gauge(REQUESTS_IN_FLIGHT, &[], "Requests that the gateway is working on now."),
    Metric::counter(RECEIPTS, &["status"], "Delivery receipts from the provider, by their status."),
    Metric::counter(INBOUND_SMS, &["keyword"], "Texts from visitors, by their keyword."),
    Metric::counter(
        SIGNATURE_FAILURES,
        &[],
        "Webhooks that were refused because their signature is not the provider's.",
    ),
];

/// The gateway has answered a request; `route` is the address's pattern.
pub(super) fn answered(route: &'static str, status: u16, since: Instant) {
    counter!(REQUESTS, "route" => route, "status" => status.to_string()).increment(1);
    histogram!(REQUEST_SECONDS, "route" => route).record(since.elapsed());
}

/// One more request in flight, or one less.
pub(super) fn in_flight(change: f64) {
    static IN_FLIGHT: LazyLock<Gauge> = LazyLock::new(|| gauge!(REQUESTS_IN_FLIGHT));
    IN_FLIGHT.increment(change);
}

/// A delivery receipt.
pub(super) fn receipt(word: Word) {
    let status = match word {
        Word::Taken => "sent",
        Word::Delivered => "delivered",
        Word::Undelivered { .. } => "undelivered",
    };
    counter!(RECEIPTS, "status" => status).increment(1);
}

/// A text from a visitor.
pub(super) fn inbound_sms(keyword: Option<Keyword>) {
    let keyword = match keyword {
        Some(Keyword::Stop) => "stop",
        Some(Keyword::Start) => "start",
        Some(Keyword::Help) => "help",
        None => "other",
    };
    counter!(INBOUND_SMS, "keyword" => keyword).increment(1);
}

/// A webhook whose signature is not the provider's.
pub(super) fn signature_failed() {
    counter!(SIGNATURE_FAILURES).increment(1);
}
