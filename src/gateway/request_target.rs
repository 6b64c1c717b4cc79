//! The target of a request, as its client wrote it.

use crate::masked::debug_shows;
use axum::http::uri::PathAndQuery;

/// In a request's extensions: its path and query as the client sent them, before the path was matched.
#[derive(Clone)]
pub(crate) struct RequestTarget(pub PathAndQuery);

debug_shows!(RequestTarget {});
