//! Every address of the console.

use super::{
    access::is_embedded_elsewhere, assets, audit_page, dead_pages, group_pages, guard::MaybeUser, layout,
    login, overview, session_pages, state::Console,
};
use crate::gateway::Gateway;
use axum::{
    Router,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use std::sync::Arc;

/// The console's pages, to be mounted at `/console`. `None` if the configuration lets nobody in.
pub(crate) fn router(gateway: &Arc<Gateway>) -> Option<Router> {
    let config = gateway.config.console.as_ref()?;
    let console = Arc::new(Console::new(gateway, config));
    let router = Router::new()
        .route("/", get(overview::page))
        .route("/live", get(overview::live))
        .route("/sessions", get(session_pages::list))
        .route("/sessions/{id}", get(session_pages::show))
        .route("/dead", get(dead_pages::list))
        .route("/dead/{letter}", get(dead_pages::show))
        .route("/dead/{letter}/{verb}", get(dead_pages::confirm).post(dead_pages::change))
        .route("/groups", get(group_pages::list))
        .route("/groups/{group}", get(group_pages::show))
        .route("/groups/{group}/{verb}", get(group_pages::confirm).post(group_pages::change))
        .route("/audit", get(audit_page::list))
        .route("/login", get(login::page).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/assets/{file}", get(asset))
        .fallback(nothing_here)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn_with_state(console.clone(), only_pages_for_others))
        .layer(middleware::map_response(layout::with_headers))
        .with_state(console);
    Some(router)
}

/// A page of another site may lead a person to a page of the console, and gets nothing else of it. Forms are looked at where
/// they are read.
async fn only_pages_for_others(
    State(console): State<Arc<Console>>,
    request: Request,
    next: Next,
) -> Response {
    if *request.method() != Method::POST && is_embedded_elsewhere(request.headers()) {
        let text =
            "Your browser says that a page of another site asks for this, other than by a link to follow.";
        return layout::refused(&console, None, StatusCode::FORBIDDEN, "Not for other sites", text);
    }
    next.run(request).await
}

/// For any other address below `/console`.
async fn nothing_here(State(console): State<Arc<Console>>, MaybeUser(user): MaybeUser) -> Response {
    layout::no_such_page(&console, user.as_ref())
}

/// For a method that an address does not take.
async fn other_method(State(console): State<Arc<Console>>, MaybeUser(user): MaybeUser) -> Response {
    let text = "This address takes another method. Pages are opened, and only their forms are sent.";
    layout::refused(&console, user.as_ref(), StatusCode::METHOD_NOT_ALLOWED, "Not like this", text)
}

/// `/assets/{file}`. There is nothing private in them.
async fn asset(State(console): State<Arc<Console>>, file: Result<Path<String>, PathRejection>) -> Response {
    let path = file.map(|Path(file)| format!("/assets/{file}")).unwrap_or_default();
    let Some((content, media_type)) = assets::find(&path) else {
        return layout::no_such_page(&console, None);
    };
    let mut response = content.into_response();
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::CACHE_CONTROL, kept);
    response
}
