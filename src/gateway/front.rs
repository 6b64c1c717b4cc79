//! What all requests have in common: an id, a place among those in hand, a line in the log, and an answer whatever
//! happens.

use super::{
    Gateway, client,
    problem::Problem,
    routes::{self, Route},
};
use crate::masked::debug_shows;
use crate::{invite::trace::TraceParent, metrics};
use axum::{
    Router,
    body::Body,
    http::{
        HeaderName, HeaderValue, Method, Request, StatusCode, Uri,
        uri::{Parts, PathAndQuery},
    },
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tower_service::Service;
use tracing::{Instrument, Span};
use uuid::Uuid;

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// In a request's extensions: its id, under which the log has it. That of an invite is its row's `correlation_id`.
#[derive(Debug, Clone, Copy)]
pub struct RequestId(pub Uuid);

/// In a request's extensions: path and query as they were asked for, before the path was matched.
#[derive(Clone)]
pub struct AsAsked(pub PathAndQuery);

debug_shows!(AsAsked {});

/// Answers one request. Dropped with its connection, it takes back nothing that it has published.
pub async fn answer(gateway: Arc<Gateway>, router: Router, peer: IpAddr, request: Request<Body>) -> Response {
    let since = Instant::now();
    let id = new_id();
    let (route, mut request) = find(&gateway, request);
    let name = route.map_or("none", |route| route.shown);
    let method = request.method().clone();
    let counted = InHand::begin(&gateway.in_hand);
    let address = client::address(peer, request.headers(), &gateway.config.http.trusted_proxies);
    request.extensions_mut().insert(address);
    request.extensions_mut().insert(RequestId(id));
    let trace =
        request.headers().get("traceparent").and_then(|value| TraceParent::parse(value.to_str().ok()?));
    let trace = trace.map(|trace| tracing::field::display(trace.trace_id()));
    let span = tracing::info_span!("request", %id, route = name, trace);

    let response = if counted.is_over(gateway.config.http.concurrency) && !is_for_operators(route) {
        Problem::unavailable("too many requests are in hand").into_response()
    } else {
        handle(router, request).instrument(span.clone()).await
    };
    let response = finish(response, id);
    drop(counted);
    metrics::answered_http(name, response.status().as_u16(), since);
    if !is_for_operators(route) {
        tell(&span, &method, response.status(), since.elapsed());
    }
    response
}

/// A random id (version 4), without a system call for each.
pub fn new_id() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// The matched route, and the request with its path as the router knows it.
fn find(gateway: &Gateway, request: Request<Body>) -> (Option<&'static Route>, Request<Body>) {
    let (mut parts, body) = request.into_parts();
    let asked = parts.uri.path_and_query().cloned();
    let found = routes::find(parts.uri.path(), &gateway.prefix);
    let route = found.as_ref().map(|(route, _)| *route);
    if let (Some((_, path)), Some(asked)) = (found, asked) {
        if path != parts.uri.path() {
            parts.uri = with_path(&path, asked.query()).unwrap_or(parts.uri);
        }
        parts.extensions.insert(AsAsked(asked));
    }
    (route, Request::from_parts(parts, body))
}

fn with_path(path: &str, query: Option<&str>) -> Option<Uri> {
    let whole = match query {
        Some(query) => [path, "?", query].concat(),
        None => path.to_owned(),
    };
    let mut parts = Parts::default();
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(bytes::Bytes::from(whole)).ok()?);
    Uri::from_parts(parts).ok()
}

/// Who looks after the gateway needs an answer above all when it is busy.
fn is_for_operators(route: Option<&Route>) -> bool {
    route.is_some_and(|route| [&routes::HEALTHZ, &routes::READYZ, &routes::METRICS].contains(&route))
}

async fn handle(mut router: Router, request: Request<Body>) -> Response {
    // A panic costs its own request only. The hook has logged it.
    match AssertUnwindSafe(router.call(request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => Problem::internal().into_response(),
    }
}

/// The request's id, and the body of a problem.
fn finish(mut response: Response, id: Uuid) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        problem.write(id, &mut response);
    }
    let mut text = Uuid::encode_buffer();
    if let Ok(id) = HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    response
}

/// Neither path nor query nor headers: they may hold keys, tokens and credentials.
fn tell(span: &Span, method: &Method, status: StatusCode, took: Duration) {
    let (status, ms) = (status.as_u16(), took.as_millis());
    span.in_scope(|| match status {
        // What is away is told once, by whoever waits for it, and not with each request.
        503 => tracing::debug!(%method, status, ms, "answered"),
        500.. => tracing::warn!(%method, status, ms, "answered"),
        200..300 if *method == Method::POST => tracing::info!(%method, status, ms, "answered"),
        _ => tracing::debug!(%method, status, ms, "answered"),
    });
}

/// A request in hand, until it is answered or its client is gone.
struct InHand<'a> {
    all: &'a AtomicUsize,
    before: usize,
}

impl<'a> InHand<'a> {
    fn begin(all: &'a AtomicUsize) -> Self {
        metrics::http_in_hand(1.0);
        Self { all, before: all.fetch_add(1, Ordering::Relaxed) }
    }

    fn is_over(&self, most: usize) -> bool {
        self.before >= most
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
        metrics::http_in_hand(-1.0);
    }
}
