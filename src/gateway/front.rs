//! What all requests have in common: an id, a permit, a line in the log, and an answer in every case.

use super::{
    Gateway, body, host, metrics,
    problem::Problem,
    request_target::RequestTarget,
    routes::{self, Route},
    visitor,
};
use crate::{http::ClientWait, supervise, traceparent::TraceParent};
use axum::{
    Router,
    body::Body,
    http::{
        HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header,
        uri::{Parts, PathAndQuery},
    },
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use tower_service::Service;
use tracing::{Instrument, Span};
use uuid::Uuid;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `Retry-After` where no better value is known, in seconds.
const SOON: HeaderValue = HeaderValue::from_static("1");

/// A request's id, in its extensions and in the log. An invite's row has it as `correlation_id`.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestId(pub Uuid);

/// One request, from its head to its answer.
#[derive(Debug, Clone)]
struct HttpExchange {
    gateway: Arc<Gateway>,
    id: Uuid,
    route: Option<&'static Route>,
    method: Method,
    since: Instant,
    span: Span,
}

/// Answers one request. It takes a permit once its body has arrived.
///
/// The connection may end at any time, which drops this future. A handler that has begun is finished all the same, on a
/// task of its own: a wrong guess is counted, a STOP is recorded. An invite needs no such task. The publisher already has
/// its message (`queue/rpc.rs`), and only the client waits for its reply.
pub(super) async fn answer(
    gateway: Arc<Gateway>,
    router: Router,
    peer: IpAddr,
    wait: &ClientWait,
    request: Request<Body>,
) -> Response {
    let since = Instant::now();
    let id = new_id();
    let (route, mut request) = find(&gateway, request);
    let method = request.method().clone();
    let trace =
        request.headers().get("traceparent").and_then(|value| TraceParent::parse(value.to_str().ok()?));
    let trace = trace.map(|trace| tracing::field::display(trace.trace_id()));
    let span = tracing::info_span!("request", %id, route = shown(route), trace);
    let exchange = HttpExchange { gateway, id, route, method, since, span };
    if let Err(refusal) = host::check(request.version(), request.headers()) {
        return exchange.end(Problem::from(refusal).into_response());
    }
    let address = exchange.gateway.proxies.client(peer, request.headers());
    request.extensions_mut().insert(address);
    request.extensions_mut().insert(exchange.gateway.proxies.sender(peer));
    request.extensions_mut().insert(RequestId(id));
    if route.is_some() && exchange.method == Method::POST {
        let received = body::receive(request.body_mut(), wait).await;
        request.extensions_mut().insert(received);
    }
    let permit = if wait.end() { RequestPermit::take(&exchange) } else { None };
    let Some(permit) = permit else {
        return exchange.fail(Problem::unavailable("too many requests are in flight"));
    };
    tokio::select! {
        biased;
        response = exchange.work(router, request, permit) => response,
        () = exchange.gateway.last_call.cancelled() => {
            exchange.fail(Problem::unavailable("the gateway is stopping"))
        }
    }
}

impl HttpExchange {
    /// Runs the handler. Where it changes or counts something, the end of the connection does not cut it short.
    async fn work(&self, router: Router, request: Request<Body>, permit: RequestPermit) -> Response {
        if !self.route.is_some_and(changes_or_counts) {
            return self.handle(router, request, permit).await;
        }
        let exchange = self.clone();
        let (sender, receiver) = oneshot::channel();
        let handling = async move {
            // The receiver is dropped if the connection has ended.
            let _ = sender.send(exchange.handle(router, request, permit).await);
        };
        supervise::spawn_work_in(&self.gateway.handlers, "a request", handling);
        receiver.await.unwrap_or_else(|_| self.fail(Problem::internal()))
    }

    async fn handle(&self, mut router: Router, request: Request<Body>, permit: RequestPermit) -> Response {
        // A panic costs its own request only. The hook has logged it.
        let handled = AssertUnwindSafe(router.call(request)).catch_unwind().instrument(self.span.clone());
        let response = match handled.await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => self.failure(Problem::internal()),
        };
        drop(permit);
        self.end(response)
    }

    /// The answer to a request that the gateway cannot take, or whose handler panicked.
    fn fail(&self, problem: Problem) -> Response {
        self.end(self.failure(problem))
    }

    /// A visitor gets a page, every other client a problem.
    fn failure(&self, problem: Problem) -> Response {
        match self.route {
            Some(route) if *route == routes::VISITOR => visitor::away(problem.status()),
            _ => problem.into_response(),
        }
    }

    /// Completes the answer, counts it and logs it.
    fn end(&self, response: Response) -> Response {
        let response = complete(response, self.id);
        metrics::answered(shown(self.route), response.status().as_u16(), self.since);
        if !is_probe(self.route) {
            log_answer(&self.span, &self.method, response.status(), self.since.elapsed());
        }
        response
    }
}

/// The routes whose handlers change or count something after a statement was answered.
fn changes_or_counts(route: &Route) -> bool {
    [
        &routes::SESSION,
        &routes::JOIN,
        &routes::END,
        &routes::VISITOR,
        &routes::TWILIO_STATUS,
        &routes::TWILIO_INBOUND,
        &routes::CONSOLE,
    ]
    .contains(&route)
}

fn shown(route: Option<&'static Route>) -> &'static str {
    route.map_or("none", |route| route.shown)
}

/// A random id (version 4), without a system call for each.
pub(super) fn new_id() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// The route of the request, and the request with its path as the router knows it.
fn find(gateway: &Gateway, request: Request<Body>) -> (Option<&'static Route>, Request<Body>) {
    let (mut parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().cloned();
    let path = parts.uri.path();
    let console = || {
        let path = routes::console(path, &gateway.prefix).filter(|_| gateway.config.console.is_some())?;
        Some((&routes::CONSOLE, path))
    };
    let found = routes::find(path, &gateway.prefix).or_else(console);
    let route = found.as_ref().map(|(route, _)| *route);
    if let (Some((_, path)), Some(target)) = (found, target) {
        if path != parts.uri.path() {
            parts.uri = with_path(&path, target.query()).unwrap_or(parts.uri);
        }
        parts.extensions.insert(RequestTarget(target));
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

/// Operators need an answer above all when the gateway is busy.
fn is_for_operators(route: Option<&Route>) -> bool {
    is_probe(route) || route.is_some_and(|route| *route == routes::CONSOLE)
}

fn is_probe(route: Option<&Route>) -> bool {
    route.is_some_and(|route| [&routes::HEALTHZ, &routes::READYZ].contains(&route))
}

/// Adds the request's id, the body of a problem, and the headers that a status needs. Answers of the HTTP library get
/// them too.
fn complete(mut response: Response, id: Uuid) -> Response {
    let status = response.status();
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        problem.write(id, &mut response);
    } else if status.is_client_error() && is_plain_text(&response) {
        // The HTTP library's own answer to a path or a header that it cannot read.
        Problem::unreadable(status).write(id, &mut response);
    }
    let status = response.status();
    let headers = response.headers_mut();
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        headers.entry(header::RETRY_AFTER).or_insert(SOON);
    }
    let mut text = Uuid::encode_buffer();
    if let Ok(id) = HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)) {
        headers.insert(X_REQUEST_ID, id);
    }
    response
}

fn is_plain_text(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/plain"))
}

/// Logs neither path nor query nor headers: they may hold keys, tokens and credentials.
fn log_answer(span: &Span, method: &Method, status: StatusCode, took: Duration) {
    let (status, ms) = (status.as_u16(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    span.in_scope(|| match status {
        // The task that waits for the database or the broker logs an outage once. Requests do not repeat it.
        503 => tracing::debug!(%method, status, ms, "answered"),
        500.. => tracing::warn!(%method, status, ms, "answered"),
        200..300 if *method == Method::POST => tracing::info!(%method, status, ms, "answered"),
        _ => tracing::debug!(%method, status, ms, "answered"),
    });
}

/// A request's permit to be in flight, until its handler is done.
#[derive(Debug)]
struct RequestPermit(Arc<Gateway>);

impl RequestPermit {
    /// `None` when all permits are taken.
    fn take(exchange: &HttpExchange) -> Option<Self> {
        let gateway = &exchange.gateway;
        metrics::in_flight(1.0);
        let before = gateway.in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Self(gateway.clone());
        (before < gateway.config.http.concurrency || is_for_operators(exchange.route)).then_some(permit)
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        metrics::in_flight(-1.0);
    }
}
