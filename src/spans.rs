//! Spans for OpenTelemetry: of an invite, its steps, the provider's call, and the statements that many invites share.
//!
//! Without a collector nothing is traced: a [`Trace`] is then empty, which costs a load of an atomic for each invite, and no
//! allocation. Spans have no phone number, key, token or credential.

mod export;
pub(crate) mod metrics;
mod otlp;

pub(crate) use export::{finish, start};

use crate::{config::Sampler, traceparent::TraceParent};
use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::mpsc;

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Decides what is traced, and takes finished spans.
struct Tracer {
    sampler: Sampler,
    queue: mpsc::Sender<Span>,
}

impl Tracer {
    fn samples(&self, parent: Option<TraceParent>, trace: TraceParent) -> bool {
        match parent {
            Some(parent) if self.sampler.follows_parent => parent.is_sampled(),
            _ => trace.is_within(self.sampler.ratio),
        }
    }

    /// A full queue drops the span: no invite waits for a collector.
    fn take(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            metrics::dropped(metrics::DropReason::QueueFull, 1);
        }
    }
}

/// Who talks to whom in a span.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SpanKind {
    Internal,
    /// A request to another system.
    Client,
    /// A message that is published.
    Producer,
    /// A message that is processed.
    Consumer,
}

/// The value of an attribute.
#[derive(Debug, Clone)]
pub(crate) enum AttributeValue {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for AttributeValue {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for AttributeValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Names and values that describe a span.
pub(crate) type Attributes = Vec<(&'static str, AttributeValue)>;

/// A finished span.
#[derive(Debug)]
struct Span {
    context: TraceParent,
    parent: Option<TraceParent>,
    name: &'static str,
    kind: SpanKind,
    begun: SystemTime,
    took: Duration,
    attributes: Attributes,
    /// Other spans that this one worked for.
    links: Vec<TraceParent>,
    is_error: bool,
}

impl Span {
    /// A span that began at `since` and ends now.
    fn ended(
        context: TraceParent,
        parent: Option<TraceParent>,
        name: &'static str,
        kind: SpanKind,
        since: Instant,
    ) -> Self {
        let took = since.elapsed();
        let begun = SystemTime::now().checked_sub(took).unwrap_or(SystemTime::UNIX_EPOCH);
        let (attributes, links) = (Vec::new(), Vec::new());
        Self { context, parent, name, kind, begun, took, attributes, links, is_error: false }
    }
}

/// The spans of one delivery of an invite; empty if it is not traced.
#[derive(Debug, Clone, Default)]
pub struct Trace(Option<Arc<InviteSpan>>);

#[derive(Debug)]
struct InviteSpan {
    context: TraceParent,
    parent: Option<TraceParent>,
    begun: Instant,
}

impl Trace {
    /// Begins the span of an invite. `parent` is what its message carries.
    pub(crate) fn begin(parent: Option<TraceParent>) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let context = parent.map_or_else(TraceParent::random, TraceParent::child).sampled();
        if !tracer.samples(parent, context) {
            return Self(None);
        }
        Self(Some(Arc::new(InviteSpan { context, parent, begun: Instant::now() })))
    }

    /// The invite's span, if it is traced.
    pub(crate) fn context(&self) -> Option<TraceParent> {
        self.0.as_ref().map(|invite| invite.context)
    }

    /// A new span below the invite's, if it is traced. [`finish`](Self::finish) ends it.
    pub(crate) fn child(&self) -> Option<TraceParent> {
        self.context().map(TraceParent::child)
    }

    /// A step that began at `since` and ends now.
    #[inline]
    pub(crate) fn step(&self, name: &'static str, since: Instant) {
        if self.0.is_some() {
            self.finish(self.child(), (name, SpanKind::Internal), since, || (Vec::new(), false));
        }
    }

    /// Ends a span that [`child`](Self::child) began. `describe` makes its attributes, and says whether it failed.
    pub(crate) fn finish(
        &self,
        child: Option<TraceParent>,
        (name, kind): (&'static str, SpanKind),
        since: Instant,
        describe: impl FnOnce() -> (Attributes, bool),
    ) {
        let (Some(context), Some(tracer)) = (child, TRACER.get()) else { return };
        let mut span = Span::ended(context, self.context(), name, kind, since);
        (span.attributes, span.is_error) = describe();
        tracer.take(span);
    }

    /// Ends the invite's own span.
    pub(crate) fn end(&self, describe: impl FnOnce() -> (Attributes, bool)) {
        let (Some(invite), Some(tracer)) = (&self.0, TRACER.get()) else { return };
        let mut span = Span::ended(invite.context, invite.parent, "invite", SpanKind::Consumer, invite.begun);
        (span.attributes, span.is_error) = describe();
        tracer.take(span);
    }
}

/// A statement over the rows of several invites: a span of the first that is traced, with links to the others.
pub(crate) fn statement(name: &'static str, since: Instant, rows: usize, traced: Vec<TraceParent>) {
    let (Some(first), Some(tracer)) = (traced.first().copied(), TRACER.get()) else { return };
    let mut span = Span::ended(first.child(), Some(first), name, SpanKind::Client, since);
    span.links = traced;
    span.links.remove(0);
    span.attributes = vec![
        ("db.system.name", "postgresql".into()),
        ("db.operation.batch.size", i64::try_from(rows).unwrap_or(i64::MAX).into()),
    ];
    tracer.take(span);
}
