//! Every address with its handler, and the web pages that may call them.

use super::{
    agents, docs, front, health, invite, openapi,
    problem::{GatewayCode, Problem},
    routes,
    state::Gateway,
    visitor, webhooks,
};
use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    routing::{get, post},
};
use std::{sync::Arc, time::Duration};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may cache the answer to a preflight request.
const CORS_MAX_AGE: Duration = Duration::from_hours(1);

/// Every address with its handler. `console` has the addresses for operators, if there is a console.
pub(super) fn router(gateway: Arc<Gateway>, console: Option<Router>) -> Router {
    let cors = cors(&gateway.config.http.cors_origins);
    let routes = Router::new()
        .route(routes::SMS_INVITE.path, post(invite::sms_invite))
        .route(routes::SESSION.path, get(agents::look_up))
        .route(routes::JOIN.path, post(agents::join))
        .route(routes::END.path, post(agents::end))
        .route(routes::VISITOR.path, get(visitor::page))
        .route(routes::TWILIO_STATUS.path, post(webhooks::status))
        .route(routes::TWILIO_INBOUND.path, post(webhooks::inbound))
        .route(routes::OPENAPI.path, get(openapi::serve))
        .route(routes::DOCS.path, get(docs::serve))
        .route(routes::HEALTHZ.path, get(health::healthz))
        .route(routes::READYZ.path, get(health::readyz))
        .fallback(async || {
            Problem::new(GatewayCode::NotFound, "nothing is at this address; /docs lists what there is")
        })
        .method_not_allowed_fallback(async || {
            Problem::new(
                GatewayCode::MethodNotAllowed,
                "the address takes other methods; see the header Allow",
            )
        })
        .with_state(gateway);
    let routes = match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    // After the layer: no other web page may call the console.
    match console {
        Some(console) => routes.nest(routes::CONSOLE.path, console),
        None => routes,
    }
}

/// The addresses for operators, on `HTTP_ADDR`.
pub(crate) fn operators(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .with_state(gateway)
}

/// For pages of these origins, if any. Credentials are in headers that a page sets itself, and never in cookies.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    let allowed = match origins.as_slice() {
        [] => return None,
        any if any.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        _ => AllowOrigin::list(origins),
    };
    let headers = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        HeaderName::from_static("x-gssnid"),
        HeaderName::from_static("traceparent"),
        invite::IDEMPOTENCY_KEY,
    ];
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(headers)
        .expose_headers([invite::IDEMPOTENCY_KEY, front::X_REQUEST_ID, header::RETRY_AFTER])
        .max_age(CORS_MAX_AGE);
    Some(layer)
}
