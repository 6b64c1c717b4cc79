//! Reading a request's body: all of it, in time, and not more than it may have.

use super::problem::{Own, Problem};
use crate::masked::debug_shows;
use crate::{
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
pub struct Content(pub Vec<u8>);

debug_shows!(Content {});

impl<S: Sync> FromRequest<S> for Content {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        // The header may be repeated, and need not be text.
        let encodings = request.headers().get_all(CONTENT_ENCODING).iter();
        let encodings: Vec<_> =
            encodings.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        let reading = tokio::time::timeout(COMES_WITHIN, read(request.into_body()));
        let late = |_| {
            let seconds = COMES_WITHIN.as_secs();
            Problem::new(Own::RequestTimeout, format!("the body did not come whole within {seconds} s"))
        };
        let whole = reading.await.map_err(late)??;
        for encoding in encodings {
            check_encoding("Content-Encoding", &encoding)?;
        }
        Ok(Self(whole))
    }
}

async fn read(mut body: Body) -> Result<Vec<u8>, Problem> {
    let mut whole = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let broken = |_| Refusal::new(Code::RequestMalformed, "the body's transfer is broken");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        size += data.len();
        if size <= LARGEST_BODY {
            if whole.is_empty() {
                whole = Vec::from(data);
            } else {
                whole.extend_from_slice(&data);
            }
        } else if size > LINGER {
            break;
        }
    }
    if size > LARGEST_BODY {
        let message = format!("the body has more than {LARGEST_BODY} bytes");
        return Err(Refusal::new(Code::RequestMalformed, message).status(413).into());
    }
    Ok(whole)
}
