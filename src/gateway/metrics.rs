//! What the gateway counts.

use super::routes;
use crate::{
    metrics::{Metric, ShownBy},
    optouts::Keyword,
    sessions::TextReport,
};
use metrics::{Gauge, counter, gauge, histogram};
use std::{sync::LazyLock, time::Instant};

const REQUESTS: &str = "session_invite_http_requests_total";
const REQUEST_SECONDS: &str = "session_invite_http_request_duration_seconds";
const REQUESTS_IN_FLIGHT: &str = "session_invite_http_requests_in_flight";
const RECEIPTS: &str = "session_invite_delivery_receipts_total";
const INBOUND_SMS: &str = "session_invite_inbound_sms_total";
const SIGNATURE_FAILURES: &str = "session_invite_webhook_signature_failures_total";

pub(crate) const METRICS: &[Metric] = &[
    on_gateway(
        Metric::counter(REQUESTS, "Requests that the gateway answered, by route and HTTP status.")
            .by_all(&["route", "status"], usual_answers),
    ),
    on_gateway(
        Metric::step_seconds(REQUEST_SECONDS, "Time from a request's head to its answer, by route.")
            .by_all(&["route"], || routes().map(|route| vec![route]).collect()),
    ),
    on_gateway(Metric::gauge(REQUESTS_IN_FLIGHT, "Requests that the gateway is working on now.")),
    on_gateway(
        Metric::counter(RECEIPTS, "Delivery receipts from the provider, by their status.")
            .by(&["status"], &["sent", "delivered", "undelivered"]),
    ),
    on_gateway(
        Metric::counter(INBOUND_SMS, "Texts from visitors, by their keyword.")
            .by(&["keyword"], &["stop", "start", "help", "other"]),
    ),
    on_gateway(Metric::counter(
        SIGNATURE_FAILURES,
        "Webhooks that were refused because their signature is not the provider's.",
    )),
];

const fn on_gateway(metric: Metric) -> Metric {
    metric.shown_by(ShownBy::Gateway)
}

/// The statuses whose series exist from the start: those of most answers, and those that alerts ask for.
const USUAL_STATUSES: [&str; 10] = ["200", "204", "400", "401", "403", "404", "429", "500", "503", "504"];

fn usual_answers() -> Vec<Vec<&'static str>> {
    routes().flat_map(|route| USUAL_STATUSES.map(|status| vec![route, status])).collect()
}

/// Every address, and `none` for a path that is not one.
fn routes() -> impl Iterator<Item = &'static str> {
    routes::ALL.iter().map(|route| route.shown).chain(["none"])
}

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
pub(super) fn receipt(word: TextReport) {
    let status = match word {
        TextReport::Accepted => "sent",
        TextReport::Delivered => "delivered",
        TextReport::Undelivered { .. } => "undelivered",
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
