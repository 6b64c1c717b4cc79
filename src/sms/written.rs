//! The last check before a text is written to the provider's line, and what is known afterwards of whether it was.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

/// How far a request's body came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Written {
    /// Nobody asked for it: no line, or one that was closed before. The provider cannot have read it.
    Nothing = 0,
    /// It was on its way to the socket.
    Perhaps = 1,
    /// The right to write it was over.
    Withheld = 2,
}

/// Lets a body out until a moment, and not later. The HTTP client asks for a body once it has a line and has put the
/// request's head into its buffer: there is no later point before the socket write.
#[derive(Debug)]
pub struct Guard {
    until: Instant,
    written: Arc<AtomicU8>,
}

impl Guard {
    pub fn until(until: Instant) -> Self {
        Self { until, written: Arc::new(AtomicU8::new(Written::Nothing as u8)) }
    }

    pub fn body(&self, content: String) -> Guarded {
        Guarded { content: content.into(), until: self.until, written: self.written.clone() }
    }

    /// The body of a request that has none.
    pub fn no_body(&self) -> Guarded {
        self.body(String::new())
    }

    pub fn written(&self) -> Written {
        match self.written.load(Ordering::Acquire) {
            0 => Written::Nothing,
            1 => Written::Perhaps,
            _ => Written::Withheld,
        }
    }
}

/// A body under guard.
pub struct Guarded {
    content: Bytes,
    until: Instant,
    written: Arc<AtomicU8>,
}

/// Without the content, which holds a visitor's number and text.
impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").field("bytes", &self.content.len()).finish_non_exhaustive()
    }
}

/// A part of the request without which the provider has no request.
#[derive(Debug, thiserror::Error)]
#[error("the text may not be handed over any more")]
pub struct TooLate;

impl Body for Guarded {
    type Data = Bytes;
    type Error = TooLate;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        if self.content.is_empty() {
            return Poll::Ready(None);
        }
        let late = Instant::now() > self.until;
        let written = if late { Written::Withheld } else { Written::Perhaps };
        self.written.store(written as u8, Ordering::Release);
        let content = std::mem::take(&mut self.content);
        Poll::Ready(Some(if late { Err(TooLate) } else { Ok(Frame::data(content)) }))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_empty()
    }

    /// Exact, so that the request has a `Content-Length`.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sms::lines::{Failed, Lines};
    use std::time::Duration;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    fn lines(url: &str) -> Lines {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Lines::new(&url.parse().unwrap(), Duration::from_secs(10)).unwrap()
    }

    fn request(guard: &Guard) -> hyper::Request<Guarded> {
        hyper::Request::post("/").body(guard.body("Body=x".to_owned())).unwrap()
    }

    /// Posts a text to a server that answers 204, and says what that server read.
    async fn post(until: Instant) -> (Written, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut line, _) = listener.accept().await.unwrap();
            let mut read = vec![0; 4_096];
            let mut request = String::new();
            while !request.ends_with("Body=x") {
                let count = line.read(&mut read).await.unwrap_or(0);
                if count == 0 {
                    return request;
                }
                request.push_str(std::str::from_utf8(&read[..count]).unwrap());
            }
            line.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            request
        });
        let guard = Guard::until(until);
        let answer = lines(&url).ask(request(&guard), 1_024).await;
        assert_eq!(answer.is_ok(), guard.written() == Written::Perhaps);
        (guard.written(), server.await.unwrap())
    }

    #[tokio::test]
    async fn in_time_the_whole_text_is_written_with_its_length() {
        let (written, request) = post(Instant::now() + Duration::from_mins(1)).await;
        assert_eq!(written, Written::Perhaps);
        assert!(
            request.to_lowercase().contains("content-length: 6\r\n") && request.ends_with("Body=x"),
            "{request}"
        );
    }

    #[tokio::test]
    async fn after_its_time_nothing_of_the_text_is_written() {
        let (written, request) = post(Instant::now().checked_sub(Duration::from_millis(1)).unwrap()).await;
        assert_eq!(written, Written::Withheld);
        assert!(!request.contains("Body"), "{request}");
    }

    #[tokio::test]
    async fn where_nobody_listens_nothing_is_written() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let guard = Guard::until(Instant::now() + Duration::from_mins(1));
        let answer = lines(&format!("http://{free}/")).ask(request(&guard), 1_024).await;
        assert_eq!(answer.unwrap_err(), Failed::NoLine);
        assert_eq!(guard.written(), Written::Nothing);
    }
}
