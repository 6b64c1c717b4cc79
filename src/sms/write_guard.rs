//! The last check before a text is written to the connection, and what is known afterwards of whether it was.

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

/// How far a request's body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum BodyProgress {
    /// The HTTP client did not read it: it had no connection, or a closed one. The provider cannot have read it.
    NotRead = 0,
    /// It was on its way to the socket.
    PerhapsWritten = 1,
    /// The time to write it was over.
    Withheld = 2,
}

/// Lets a body out until a moment, and not later. The HTTP client reads a body once it has a connection and has put the
/// request's head into its buffer: there is no later point before the socket write.
#[derive(Debug)]
pub(super) struct WriteGuard {
    until: Instant,
    progress: Arc<AtomicU8>,
}

impl WriteGuard {
    pub(super) fn until(until: Instant) -> Self {
        Self { until, progress: Arc::new(AtomicU8::new(BodyProgress::NotRead as u8)) }
    }

    pub(super) fn body(&self, content: String) -> GuardedBody {
        GuardedBody { content: content.into(), until: self.until, progress: self.progress.clone() }
    }

    /// The body of a request that has none.
    pub(super) fn no_body(&self) -> GuardedBody {
        self.body(String::new())
    }

    pub(super) fn progress(&self) -> BodyProgress {
        match self.progress.load(Ordering::Acquire) {
            0 => BodyProgress::NotRead,
            1 => BodyProgress::PerhapsWritten,
            _ => BodyProgress::Withheld,
        }
    }
}

/// A body that is let out only in time.
pub(super) struct GuardedBody {
    content: Bytes,
    until: Instant,
    progress: Arc<AtomicU8>,
}

/// Without the content, which holds a visitor's number and text.
impl std::fmt::Debug for GuardedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuardedBody").field("bytes", &self.content.len()).finish_non_exhaustive()
    }
}

/// The body was withheld, so the request is incomplete.
#[derive(Debug, thiserror::Error)]
#[error("the text may not be handed over any more")]
pub(super) struct WithheldError;

impl Body for GuardedBody {
    type Data = Bytes;
    type Error = WithheldError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WithheldError>>> {
        if self.content.is_empty() {
            return Poll::Ready(None);
        }
        let late = Instant::now() > self.until;
        let progress = if late { BodyProgress::Withheld } else { BodyProgress::PerhapsWritten };
        self.progress.store(progress as u8, Ordering::Release);
        let content = std::mem::take(&mut self.content);
        Poll::Ready(Some(if late { Err(WithheldError) } else { Ok(Frame::data(content)) }))
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
    use crate::sms::connections::{ProviderConnections, RequestError};
    use std::time::Duration;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    fn connections(url: &str) -> ProviderConnections {
        let _ = rustls::crypto::ring::default_provider().install_default();
        ProviderConnections::new(&url.parse().unwrap(), Duration::from_secs(10)).unwrap()
    }

    fn request(guard: &WriteGuard) -> hyper::Request<GuardedBody> {
        hyper::Request::post("/").body(guard.body("Body=x".to_owned())).unwrap()
    }

    /// Posts a text to a server that answers 204; the progress, and what the server read.
    async fn post(until: Instant) -> (BodyProgress, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut read = vec![0; 4_096];
            let mut request = String::new();
            while !request.ends_with("Body=x") {
                let count = connection.read(&mut read).await.unwrap_or(0);
                if count == 0 {
                    return request;
                }
                request.push_str(std::str::from_utf8(&read[..count]).unwrap());
            }
            connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            request
        });
        let guard = WriteGuard::until(until);
        let answer = connections(&url).request(request(&guard), 1_024).await;
        assert_eq!(answer.is_ok(), guard.progress() == BodyProgress::PerhapsWritten);
        (guard.progress(), server.await.unwrap())
    }

    #[tokio::test]
    async fn in_time_the_whole_text_is_written_with_its_length() {
        let (progress, request) = post(Instant::now() + Duration::from_mins(1)).await;
        assert_eq!(progress, BodyProgress::PerhapsWritten);
        assert!(
            request.to_lowercase().contains("content-length: 6\r\n") && request.ends_with("Body=x"),
            "{request}"
        );
    }

    #[tokio::test]
    async fn after_its_time_nothing_of_the_text_is_written() {
        let (progress, request) = post(Instant::now().checked_sub(Duration::from_millis(1)).unwrap()).await;
        assert_eq!(progress, BodyProgress::Withheld);
        assert!(!request.contains("Body"), "{request}");
    }

    #[tokio::test]
    async fn without_a_server_nothing_is_written() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let guard = WriteGuard::until(Instant::now() + Duration::from_mins(1));
        let answer = connections(&format!("http://{free}/")).request(request(&guard), 1_024).await;
        assert!(matches!(answer.unwrap_err(), RequestError::NotConnected { no_files: false, .. }));
        assert_eq!(guard.progress(), BodyProgress::NotRead);
    }
}
