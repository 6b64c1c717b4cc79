//! The address of a request, as its client wrote it.

use crate::masked::debug_shows;
use axum::http::uri::PathAndQuery;

/// In a request's extensions: path and query as they were asked for, before the path was matched.
#[derive(Clone)]
pub struct AsAsked(pub PathAndQuery);

debug_shows!(AsAsked {});
