//! `/openapi.json`.

use axum::response::{IntoResponse, Response};

pub fn document() -> String {
    "{}".to_owned()
}

pub async fn serve() -> Response {
    document().into_response()
}
