//! Parses a response of HTTP/1.1 that has a `Content-Length`, for the benchmark's own HTTP client.

use httparse::{EMPTY_HEADER, Response, Status};

/// More headers than the gateway sends.
const MAX_HEADERS: usize = 32;

/// A complete response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HttpResponse<'a> {
    pub status: u16,
    pub body: &'a [u8],
    /// Whether the connection takes another request.
    pub keeps_alive: bool,
}

/// The response in the bytes that were received so far. `None` while it is not complete. Nothing may follow it.
pub(crate) fn parse(received: &[u8]) -> Result<Option<HttpResponse<'_>>, String> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut head = Response::new(&mut headers);
    let parsed = head.parse(received).map_err(|error| format!("the response cannot be read: {error}"))?;
    let (Status::Complete(end_of_head), Some(status)) = (parsed, head.code) else { return Ok(None) };
    let header = |name| {
        let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let length = header("Content-Length").and_then(|length| length.parse::<usize>().ok());
    let length = length.ok_or("the response has no Content-Length")?;
    let keeps_alive = !header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let body = &received[end_of_head..];
    if body.len() > length {
        return Err("more data follows the response".to_owned());
    }
    Ok((body.len() == length).then_some(HttpResponse { status, body, keeps_alive }))
}
