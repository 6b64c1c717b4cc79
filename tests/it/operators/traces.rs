//! Spans of OpenTelemetry, as a collector gets them.

use crate::support::{Collector, Events, Message, Setup, World, free_address, keeps_promise, now, until};
use serde_json::Value;
use std::time::{Duration, Instant};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SENDERS_SPAN: &str = "b7ad6b7169203331";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{SENDERS_SPAN}-{flags}")
}

/// Waits until the collector has so many spans of invites, and all of their steps.
async fn invites(collector: &Collector, count: usize) -> Vec<Value> {
    let named = |spans: &[Value], name: &str| spans.iter().filter(|span| span["name"] == name).count();
    until(&format!("the collector has {count} invites"), || async {
        let spans = collector.spans();
        (named(&spans, "invite") >= count).then_some(spans)
    })
    .await
}

/// The value of a span's attribute, as text.
fn attribute(span: &Value, name: &str) -> Option<String> {
    let attributes = span["attributes"].as_array().expect("attributes");
    let found = &attributes.iter().find(|attribute| attribute["key"] == name)?["value"];
    let values = [&found["stringValue"], &found["intValue"], &found["boolValue"]];
    values
        .into_iter()
        .find(|value| !value.is_null())
        .map(|value| value.to_string().trim_matches('"').to_owned())
}

fn the<'a>(spans: &'a [Value], name: &str) -> &'a Value {
    let mut found = spans.iter().filter(|span| span["name"] == name);
    let span = found.next().unwrap_or_else(|| panic!("no span {name:?}: {spans:#?}"));
    assert!(found.next().is_none(), "one {name:?}: {spans:#?}");
    span
}

#[tokio::test]
async fn one_trace_leads_from_the_sender_by_the_invites_steps_to_provider_reply_and_events() {
    let collector = Collector::start();
    let setup = Setup::default()
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .set("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b")
        .set("OTEL_TRACES_SAMPLER_ARG", "0");
    let world = setup.start().await;
    let events = Events::subscribe(&world, "session.*.72").await;
    let message = Message::json(&world.request()).id("order-17").timestamp(now());
    let reply = world.call(message.text_header("traceparent", &traceparent("01"))).await;
    let sent = reply.sent();
    let spans = invites(&collector, 1).await;
    let invite = the(&spans, "invite");
    let id = invite["spanId"].as_str().expect("an id");
    assert_eq!((&invite["parentSpanId"], &invite["kind"]), (&SENDERS_SPAN.into(), &5.into()), "{invite}");
    for (name, value) in [
        ("session_invite.end", "sent"),
        ("session_invite.group", "72"),
        ("messaging.message.id", "order-17"),
        ("session_invite.session_id", &sent.session_id.to_string()),
    ] {
        assert_eq!(attribute(invite, name).as_deref(), Some(value), "{invite}");
    }
    let steps = [
        "authenticate",
        "turn",
        "place",
        "insert",
        "provider: create a message",
        "record",
        "publish the reply",
    ];
    for name in steps.into_iter().chain(["insert sessions", "record outcomes"]) {
        let span = the(&spans, name);
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&TRACE.into(), &id.into()), "{span}");
        let nanos = |end: &str| span[end].as_str().expect("nanoseconds").parse::<u64>().expect("a number");
        assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"), "{span}");
    }
    let provider = the(&spans, "provider: create a message");
    assert_eq!(attribute(provider, "session_invite.result").as_deref(), Some("accepted"), "{provider}");
    let text = world.provider.text().await;
    let called = format!("00-{TRACE}-{}-01", provider["spanId"].as_str().unwrap());
    assert_eq!(text["traceparent"], called.as_str());
    assert_eq!(reply.header("traceparent"), Some(format!("00-{TRACE}-{id}-01")));
    let event = until("the event", || async { events.received().into_iter().next() }).await;
    assert!(event.traceparent.is_some_and(|trace| trace.starts_with(&format!("00-{TRACE}-"))));
    let request = &collector.requests()[0];
    assert!(request.head.starts_with("post /v1/traces "), "{}", request.head);
    assert!(request.head.contains("x-tenant: a b"), "{}", request.head);
    let all = collector.requests().iter().map(|request| request.body.to_string()).collect::<String>();
    let token = sent.invitation_text.split("/s/").nth(1).unwrap().split(' ').next().unwrap();
    for private in ["1110000000", &sent.session_key, token, &world.credential(), &world.api_key] {
        assert!(!all.contains(private), "{private}: {all}");
    }
}

#[tokio::test]
async fn a_further_try_is_in_the_trace_of_the_first() {
    let collector = Collector::start();
    let world = Setup::default().set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url).start().await;
    world.provider.next(&["throttle"]).await;
    world.invite(&world.request()).await.sent();
    let spans = invites(&collector, 2).await;
    let end = |word: &str| {
        let found = spans.iter().find(|span| attribute(span, "session_invite.end").as_deref() == Some(word));
        found.unwrap_or_else(|| panic!("{word}: {spans:#?}"))
    };
    let (first, second) = (end("later"), end("sent"));
    assert!(first["parentSpanId"].is_null(), "the sender traces nothing: {first}");
    assert_eq!(second["traceId"], first["traceId"]);
    assert_eq!(second["parentSpanId"], first["spanId"]);
}

#[tokio::test]
async fn what_the_sender_does_not_sample_is_not_traced() {
    let collector = Collector::start();
    let mut world = Setup::default().set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url).start().await;
    let unsampled = Message::json(&world.request()).text_header("traceparent", &traceparent("00"));
    world.call(unsampled).await.sent();
    world.invite(&world.request_to_number(1)).await.sent();
    let spans = invites(&collector, 1).await;
    assert!(spans.iter().all(|span| span["traceId"] != TRACE), "{spans:#?}");
    world.stop_worker();
}

#[tokio::test]
async fn a_collector_that_is_away_costs_no_invite_and_no_stop() {
    let mut world = World::start().await;
    // It accepts connections, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let hanging = silent.local_addr().expect("an address").to_string();
    for collector in [free_address(), hanging] {
        let url = format!("http://{collector}");
        // An export may take five seconds; the last one, at a stop, half a second.
        keeps_promise(Duration::from_secs(3), async || {
            let mut worker = world.replace_worker(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]).await;
            world.invite(&world.request()).await.sent();
            let begun = Instant::now();
            assert!(worker.stop().success());
            let took = begun.elapsed();
            let next = world.start_worker().await;
            world.keep_worker(next);
            took
        })
        .await;
    }
    let url = format!("http://{}", free_address());
    let worker = world.replace_worker(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]).await;
    world.invite(&world.request()).await.sent();
    until("dropped spans are counted", || async {
        let metrics = worker.metrics().await;
        let dropped = metrics
            .lines()
            .find_map(|line| line.strip_prefix(r#"session_invite_spans_dropped_total{reason="collector"} "#));
        dropped.filter(|count| *count != "0").map(drop)
    })
    .await;
    world.keep_worker(worker);
}
