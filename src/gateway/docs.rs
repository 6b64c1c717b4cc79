//! `/docs`: the OpenAPI document as a page for people.

mod render;

use super::{openapi::document, page::page, state::Gateway};
use axum::{extract::State, http::StatusCode, response::Response};
use std::sync::{Arc, OnceLock};

const STYLE: &str = include_str!("docs/style.css");

/// Serves the page, which is rendered once.
pub(super) async fn serve(State(gateway): State<Arc<Gateway>>) -> Response {
    static HTML: OnceLock<String> = OnceLock::new();
    let html = HTML.get_or_init(|| render::html(document(), STYLE, &gateway.prefix));
    page(StatusCode::OK, STYLE, html.clone())
}
