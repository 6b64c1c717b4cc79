//! Reading a request's body: all of it, in time, and not more than it may have.

use super::problem::{Own, Problem};
use crate::masked::debug_shows;
use crate::{
    http::Arrival,
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

/// The whole body has to come within this.
const COMES_WITHIN: Duration = Duration::from_secs(10);
/// A body that is too large is read on up to here, so that its sender hears why it is refused and not a reset.
const LINGER: usize = 1024 * 1024;

/// A request's whole body.
#[derive(Clone)]
pub struct Content(pub Vec<u8>);

debug_shows!(Content {});

/// In a request's extensions: its body, which is read before the request takes a place (`front`).
#[derive(Debug, Clone)]
pub(super) struct Received(Result<Content, Problem>);

impl<S: Sync> FromRequest<S> for Content {
    type Rejection = Problem;

    async fn from_request(mut request: Request, _: &S) -> Result<Self, Problem> {
        let received = request.extensions_mut().remove::<Received>();
        // `front` reads the body of each POST.
        let content = received.map_or_else(|| Err(Problem::internal()), |received| received.0)?;
        // The header may be repeated, and need not be text.
        for encoding in request.headers().get_all(CONTENT_ENCODING) {
            check_encoding("Content-Encoding", &String::from_utf8_lossy(encoding.as_bytes()))?;
        }
        Ok(content)
    }
}

/// Reads the body of a connection's request.
pub(super) async fn receive(body: &mut Body, arrival: &Arrival) -> Received {
    let late = |_| {
        let seconds = COMES_WITHIN.as_secs();
        Problem::new(Own::RequestTimeout, format!("the body did not come whole within {seconds} s"))
    };
    let read = tokio::time::timeout(COMES_WITHIN, read(body, arrival)).await;
    Received(read.map_err(late).flatten().map(Content))
}

async fn read(body: &mut Body, arrival: &Arrival) -> Result<Vec<u8>, Problem> {
    let mut whole = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let broken = |_| Refusal::new(Code::RequestMalformed, "the body's transfer is broken");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        size += data.len();
        if size > LARGEST_BODY {
            whole = Vec::new();
            if size > LINGER {
                break;
            }
            continue;
        }
        arrival.holds(data.len());
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
