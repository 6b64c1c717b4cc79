//! Spans as OTLP's JSON (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).
//!
//! Written straight from the spans: a tree of JSON values would cost several times as much, on the invites' own threads.

use super::{AttributeValue, Span, SpanKind};
use crate::traceparent::TraceParent;
use serde::{Serialize, Serializer};
use std::{
    fmt::Display,
    time::{SystemTime, UNIX_EPOCH},
};

/// The body of one export.
pub(super) fn body(service: &str, spans: &[Span]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        ("service.name", AttributeValue::from(service)),
        ("service.version", version.into()),
        ("process.pid", i64::from(std::process::id()).into()),
    ];
    let export = Export {
        resource_spans: [ResourceSpans {
            resource: Resource { attributes: attributes(&resource) },
            scope_spans: [ScopeSpans {
                scope: SpanScope { name: "session-invite", version },
                spans: spans.iter().map(SpanJson::of).collect(),
            }],
        }],
    };
    // A struct of texts and numbers always serializes.
    serde_json::to_string(&export).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Export<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: SpanScope<'a>,
    spans: Vec<SpanJson<'a>>,
}

#[derive(Serialize)]
struct SpanScope<'a> {
    name: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    #[serde(flatten)]
    id: SpanContext,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: &'a str,
    kind: u8,
    #[serde(serialize_with = "as_text")]
    start_time_unix_nano: u128,
    #[serde(serialize_with = "as_text")]
    end_time_unix_nano: u128,
    attributes: Vec<Attribute<'a>>,
    links: Vec<SpanContext>,
    status: SpanStatus,
}

impl<'a> SpanJson<'a> {
    fn of(span: &'a Span) -> Self {
        Self {
            id: SpanContext::of(span.context),
            parent_span_id: span.parent.map(TraceParent::span_id),
            name: span.name,
            kind: match span.kind {
                SpanKind::Internal => 1,
                SpanKind::Client => 3,
                SpanKind::Producer => 4,
                SpanKind::Consumer => 5,
            },
            start_time_unix_nano: nanos(span.begun),
            end_time_unix_nano: nanos(span.begun + span.took),
            attributes: attributes(&span.attributes),
            links: span.links.iter().copied().map(SpanContext::of).collect(),
            status: SpanStatus { code: span.is_error.then_some(2) },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanContext {
    trace_id: String,
    span_id: String,
}

impl SpanContext {
    fn of(context: TraceParent) -> Self {
        Self { trace_id: context.trace_id(), span_id: context.span_id() }
    }
}

#[derive(Serialize)]
struct SpanStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'a str,
    value: AttributeJson<'a>,
}

#[derive(Serialize)]
enum AttributeJson<'a> {
    #[serde(rename = "stringValue")]
    Text(&'a str),
    /// A 64-bit integer is a string in this encoding.
    #[serde(rename = "intValue", serialize_with = "as_text")]
    Number(i64),
    #[serde(rename = "boolValue")]
    Flag(bool),
}

fn attributes<'a>(all: &'a [(&'static str, AttributeValue)]) -> Vec<Attribute<'a>> {
    let attribute = |(key, value): &'a (&'static str, AttributeValue)| {
        let value = match value {
            AttributeValue::Text(text) => AttributeJson::Text(text),
            AttributeValue::Number(number) => AttributeJson::Number(*number),
            AttributeValue::Flag(flag) => AttributeJson::Flag(*flag),
        };
        Attribute { key, value }
    };
    all.iter().map(attribute).collect()
}

fn nanos(at: SystemTime) -> u128 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

fn as_text<S: Serializer>(number: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::{Duration, Instant};

    #[test]
    fn a_span_is_written_as_the_encoding_says() {
        let parent = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        let context = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01").unwrap();
        let span = Span {
            begun: UNIX_EPOCH + Duration::from_nanos(1_796_000_000_123_456_789),
            took: Duration::from_nanos(11),
            attributes: vec![("a", "text".into()), ("b", 7.into()), ("c", true.into())],
            links: vec![parent],
            is_error: true,
            ..Span::ended(context, Some(parent), "invite", SpanKind::Consumer, Instant::now())
        };
        let written: Value = serde_json::from_str(&body("worker", &[span])).unwrap();
        assert_eq!(
            written["resourceSpans"][0]["resource"]["attributes"][0]["value"]["stringValue"],
            "worker"
        );
        assert_eq!(
            written["resourceSpans"][0]["scopeSpans"][0]["spans"][0],
            json!({
                "traceId": "0af7651916cd43dd8448eb211c80319c",
                "spanId": "00f067aa0ba902b7",
                "parentSpanId": "b7ad6b7169203331",
                "name": "invite",
                "kind": 5,
                "startTimeUnixNano": "1796000000123456789",
                "endTimeUnixNano": "1796000000123456800",
                "attributes": [
                    { "key": "a", "value": { "stringValue": "text" } },
                    { "key": "b", "value": { "intValue": "7" } },
                    { "key": "c", "value": { "boolValue": true } },
                ],
                "links": [{ "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331" }],
                "status": { "code": 2 },
            })
        );
    }
}
