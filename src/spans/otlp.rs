//! Spans as OTLP's JSON (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).

use super::{AttributeValue, Span, SpanKind};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// The body of one export.
pub(super) fn body(service: &str, spans: &[Span]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        ("service.name", AttributeValue::from(service)),
        ("service.version", version.into()),
        ("process.pid", i64::from(std::process::id()).into()),
    ];
    json!({
        "resourceSpans": [{
            "resource": { "attributes": attributes(&resource) },
            "scopeSpans": [{
                "scope": { "name": "session-invite", "version": version },
                "spans": spans.iter().map(span).collect::<Vec<_>>(),
            }],
        }],
    })
    .to_string()
}

fn span(span: &Span) -> Value {
    let nanos = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    let mut value = json!({
        "traceId": span.context.trace_id(),
        "spanId": span.context.span_id(),
        "name": span.name,
        "kind": match span.kind {
            SpanKind::Internal => 1,
            SpanKind::Client => 3,
            SpanKind::Producer => 4,
            SpanKind::Consumer => 5,
        },
        "startTimeUnixNano": nanos(span.begun),
        "endTimeUnixNano": nanos(span.begun + span.took),
        "attributes": attributes(&span.attributes),
        "links": span.links.iter().map(|link| json!({ "traceId": link.trace_id(), "spanId": link.span_id() }))
            .collect::<Vec<_>>(),
        "status": if span.is_error { json!({ "code": 2 }) } else { json!({}) },
    });
    if let Some(parent) = span.parent {
        value["parentSpanId"] = parent.span_id().into();
    }
    value
}

fn attributes(all: &[(&'static str, AttributeValue)]) -> Value {
    let attribute = |(key, value): &(&'static str, AttributeValue)| {
        let value = match value {
            AttributeValue::Text(text) => json!({ "stringValue": text }),
            // A 64-bit integer is a string in this encoding.
            AttributeValue::Number(number) => json!({ "intValue": number.to_string() }),
            AttributeValue::Flag(flag) => json!({ "boolValue": flag }),
        };
        json!({ "key": key, "value": value })
    };
    all.iter().map(attribute).collect()
}
