//! An answer of HTTP/1.1, as far as the benchmark's own client needs it: whole, and with its length told.

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
    /// Whether the connection takes another request.
    pub keeps: bool,
}

/// What was read so far as an answer; `None` while some of it is to come. Nothing may follow it.
pub fn parse(read: &[u8]) -> Result<Option<Answer<'_>>, &'static str> {
    let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&read[..end]).map_err(|_| "the head is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or("the status line cannot be read")?;
    let (mut length, mut keeps) = (None, true);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            keeps = !value.trim().eq_ignore_ascii_case("close");
        }
    }
    let length = length.ok_or("the answer does not tell its length")?;
    let body = &read[end + 4..];
    match body.len() {
        more if more > length => Err("something follows the answer"),
        all if all == length => Ok(Some(Answer { status, body, keeps })),
        _ => Ok(None),
    }
}
