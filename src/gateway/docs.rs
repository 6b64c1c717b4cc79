//! `/docs`: the document of `/openapi.json`, to read.

mod render;

use super::{Gateway, openapi::responses::Busy, page::page, routes};
use axum::{extract::State, http::StatusCode, response::Response};
use std::sync::{Arc, OnceLock};

const STYLE: &str = include_str!("docs/style.css");

/// Read the reference
#[utoipa::path(get, operation_id = "docs", path = routes::DOCS.shown, tag = "Operating", responses(
    (status = 200, description = "A page that needs nothing from outside.", body = String, content_type = "text/html"),
    Busy,
))]
pub async fn serve(State(gateway): State<Arc<Gateway>>) -> Response {
    static HTML: OnceLock<String> = OnceLock::new();
    let html = HTML.get_or_init(|| render::html(super::document(), STYLE, &gateway.prefix));
    page(StatusCode::OK, STYLE, html.clone())
}
