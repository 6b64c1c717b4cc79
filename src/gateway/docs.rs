//! `/docs`.

use axum::response::{IntoResponse, Response};

pub async fn serve() -> Response {
    "docs".into_response()
}
