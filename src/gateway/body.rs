//! Reads the whole body of a request, within its limits of time and size.

use super::problem::{GatewayCode, Problem};
use crate::masked::debug_shows;
use crate::{
    http::ClientWait,
    invite::request::{LARGEST_BODY, check_encoding},
    refusal::{Code, Refusal},
};
use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::header::CONTENT_ENCODING,
};
use http_body_util::BodyExt;
use std::time::Duration;

/// The whole body has to arrive within this.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
/// A body over the limit is still read up to this size, so that its sender gets the 413 and no connection reset.
const LINGER: usize = 1024 * 1024;

/// A request's whole body.
#[derive(Clone)]
pub(crate) struct RequestBody(pub Vec<u8>);

debug_shows!(RequestBody {});

/// The body, in a request's extensions: `front` reads it before the request takes a permit.
#[derive(Debug, Clone)]
pub(super) struct ReceivedBody(Result<RequestBody, Problem>);

impl<S: Sync> FromRequest<S> for RequestBody {
    type Rejection = Problem;

    async fn from_request(mut request: Request, _: &S) -> Result<Self, Problem> {
        let received = request.extensions_mut().remove::<ReceivedBody>();
        // It is always there: `front` reads the body of every POST.
        let content = received.map_or_else(|| Err(Problem::internal()), |received| received.0)?;
        // The header may be repeated, and need not be text.
        for encoding in request.headers().get_all(CONTENT_ENCODING) {
            check_encoding("Content-Encoding", &String::from_utf8_lossy(encoding.as_bytes()))?;
        }
        Ok(content)
    }
}

/// Reads the body of a request that arrives on a connection.
pub(super) async fn receive(body: &mut Body, wait: &ClientWait) -> ReceivedBody {
    let late = |_| {
        let seconds = ARRIVES_WITHIN.as_secs();
        Problem::new(
            GatewayCode::RequestTimeout,
            format!("the body did not arrive completely within {seconds} s"),
        )
    };
    let read = tokio::time::timeout(ARRIVES_WITHIN, read(body, wait)).await;
    ReceivedBody(read.map_err(late).flatten().map(RequestBody))
}

async fn read(body: &mut Body, wait: &ClientWait) -> Result<Vec<u8>, Problem> {
    let mut whole = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let broken = |_| Refusal::new(Code::RequestMalformed, "the transfer of the body is broken");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        size += data.len();
        if size > LARGEST_BODY {
            whole = Vec::new();
            if size > LINGER {
                break;
            }
            continue;
        }
        wait.add_body_bytes(data.len());
        if whole.is_empty() {
            whole = Vec::from(data);
        } else {
            whole.extend_from_slice(&data);
        }
    }
    if size > LARGEST_BODY {
        let message = format!("the body has more than {LARGEST_BODY} bytes");
        return Err(Refusal::new(Code::RequestMalformed, message).status(413).into());
    }
    Ok(whole)
}
