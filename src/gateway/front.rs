//! What all requests have in common: an id, a place among those in hand, a line in the log, and an answer whatever
//! happens.

use super::{
    Gateway,
    as_asked::AsAsked,
    body, host, metrics,
    problem::Problem,
    routes::{self, Route},
    visitor,
};
use crate::{http::Arrival, supervise, traceparent::TraceParent};
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

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `Retry-After` where nobody knows better, in seconds.
const SOON: HeaderValue = HeaderValue::from_static("1");

/// In a request's extensions: its id, under which the log has it. That of an invite is its row's `correlation_id`.
#[derive(Debug, Clone, Copy)]
pub struct RequestId(pub Uuid);

/// One request, from its head to its answer.
#[derive(Debug, Clone)]
struct Exchange {
    gateway: Arc<Gateway>,
    id: Uuid,
    route: Option<&'static Route>,
    method: Method,
    since: Instant,
    span: Span,
}

/// Answers one request. It takes a place once its body is there.
///
/// The connection may end at any time, and drops this. What a handler has begun by then is finished all the same, on a
/// task of its own: a wrong guess is counted, a STOP is noted whole. An invite needs none, as its message is on its way
/// once it is handed to the publisher (`queue/ask.rs`), and nobody else waits for the reply.
pub async fn answer(
    gateway: Arc<Gateway>,
    router: Router,
    peer: IpAddr,
    arrival: &Arrival,
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
    let exchange = Exchange { gateway, id, route, method, since, span };
    if let Err(refusal) = host::check(request.version(), request.headers()) {
        return exchange.end(Problem::from(refusal).into_response());
    }
    let address = exchange.gateway.proxies.client(peer, request.headers());
    request.extensions_mut().insert(address);
    request.extensions_mut().insert(RequestId(id));
    if route.is_some() && exchange.method == Method::POST {
        let received = body::receive(request.body_mut(), arrival).await;
        request.extensions_mut().insert(received);
    }
    let place = arrival.is_whole().then(|| Place::take(&exchange)).flatten();
    let Some(place) = place else {
        return exchange.fail(Problem::unavailable("too many requests are in hand"));
    };
    tokio::select! {
        biased;
        response = exchange.work(router, request, place) => response,
        () = exchange.gateway.last_call.cancelled() => {
            exchange.fail(Problem::unavailable("the gateway is stopping"))
        }
    }
}

impl Exchange {
    /// The handler's work, which the end of the connection does not cut short where it changes or counts anything.
    async fn work(&self, router: Router, request: Request<Body>, place: Place) -> Response {
        if !self.route.is_some_and(changes_or_counts) {
            return self.handle(router, request, place).await;
        }
        let exchange = self.clone();
        let (answering, answered) = oneshot::channel();
        let working = async move {
            // Nobody may be there any more.
            let _ = answering.send(exchange.handle(router, request, place).await);
        };
        supervise::aside_in(&self.gateway.working, "a request", working);
        answered.await.unwrap_or_else(|_| self.fail(Problem::internal()))
    }

    async fn handle(&self, mut router: Router, request: Request<Body>, place: Place) -> Response {
        // A panic costs its own request only. The hook has logged it.
        let handled = AssertUnwindSafe(router.call(request)).catch_unwind().instrument(self.span.clone());
        let response = match handled.await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => self.failure(Problem::internal()),
        };
        drop(place);
        self.end(response)
    }

    /// The answer to a request that the gateway cannot take, or failed over.
    fn fail(&self, problem: Problem) -> Response {
        self.end(self.failure(problem))
    }

    /// A visitor gets a page, everybody else a problem.
    fn failure(&self, problem: Problem) -> Response {
        match self.route {
            Some(route) if *route == routes::VISITOR => visitor::away(problem.status()),
            _ => problem.into_response(),
        }
    }

    /// The answer as it goes out, counted and logged.
    fn end(&self, response: Response) -> Response {
        let response = finish(response, self.id);
        metrics::answered(shown(self.route), response.status().as_u16(), self.since);
        if !is_for_operators(self.route) {
            tell(&self.span, &self.method, response.status(), self.since.elapsed());
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
    ]
    .contains(&route)
}

fn shown(route: Option<&'static Route>) -> &'static str {
    route.map_or("none", |route| route.shown)
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
    route.is_some_and(|route| [&routes::HEALTHZ, &routes::READYZ].contains(&route))
}

/// The request's id, the body of a problem, and the headers that go with a status, whoever has answered.
fn finish(mut response: Response, id: Uuid) -> Response {
    let status = response.status();
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        problem.write(id, &mut response);
    } else if status.is_client_error() && is_plain_text(&response) {
        // The HTTP library's own word on a path or a header that it cannot read.
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

/// A request's place among those in hand, until its handler is done.
#[derive(Debug)]
struct Place(Arc<Gateway>);

impl Place {
    /// `None`: all are taken.
    fn take(exchange: &Exchange) -> Option<Self> {
        let gateway = &exchange.gateway;
        metrics::in_flight(1.0);
        let before = gateway.in_hand.fetch_add(1, Ordering::Relaxed);
        let place = Self(gateway.clone());
        (before < gateway.config.http.concurrency || is_for_operators(exchange.route)).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_hand.fetch_sub(1, Ordering::Relaxed);
        metrics::in_flight(-1.0);
    }
}
