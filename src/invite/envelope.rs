//! A delivery without the broker's client: all that a request is read from.

use crate::{
    masked::debug_shows,
    refusal::{Code, Refusal},
    spans::Trace,
    traceparent::TraceParent,
    trouble::Trouble,
};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A timestamp above this is in milliseconds (contract, section 2).
const FIRST_IN_MILLISECONDS: u64 = 100_000_000_000;

/// How far a publisher's clock may be ahead of this machine's.
const CLOCKS_APART: Duration = Duration::from_secs(5);

/// The value of a header that the worker reads.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderValue {
    Text(String),
    Integer(i64),
    /// A value of another type, or bytes that are not UTF-8.
    Other,
}

debug_shows!(HeaderValue {});

/// One message as the broker delivered it.
#[derive(Clone, Default)]
pub struct Envelope {
    /// The request, as bytes.
    pub body: Vec<u8>,
    /// The idempotency key.
    pub message_id: Option<String>,
    /// Copied into the reply.
    pub correlation_id: Option<String>,
    /// The queue for the reply.
    pub reply_to: Option<String>,
    /// If set, it must be JSON.
    pub content_type: Option<String>,
    /// Only `identity` is accepted.
    pub content_encoding: Option<String>,
    /// As the sender wrote it: seconds, or milliseconds.
    pub timestamp: Option<u64>,
    /// Milliseconds, as a string of digits.
    pub expiration: Option<String>,
    /// The headers `authorization`, `x-gssnid`, `groupid` and `traceparent`, their names in lower case.
    pub headers: Vec<(String, HeaderValue)>,
    /// The broker delivered it before.
    pub redelivered: bool,
    /// When this delivery arrived.
    pub received: Option<Instant>,
    /// The message was published after this, as its queue was empty then.
    pub published_after: Option<Instant>,
    /// A session's id and ticket: the message claims to be a retry copy. Only the row's own ticket proves it.
    pub ticket: Option<(Uuid, Uuid)>,
    /// The broker dropped the message from the queue of requests, because its `expiration` had run out.
    pub expired_in_queue: bool,
    /// Cancelled once the broker takes the message back, for example when the connection is lost. The broker delivers it
    /// again: what has not begun by then is left to that delivery.
    pub withdrawn: CancellationToken,
    /// The spans of this delivery.
    pub trace: Trace,
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl Envelope {
    /// Whether a worker may have had the message before. On the queue `.dropped` the broker marks no redelivery.
    pub fn may_be_known(&self) -> bool {
        self.redelivered || self.expired_in_queue
    }

    /// # Errors
    ///
    /// `Trouble::Stopping` once the broker has taken the message back.
    pub fn ensure_not_withdrawn(&self) -> Result<(), Trouble> {
        if self.withdrawn.is_cancelled() { Err(Trouble::Stopping) } else { Ok(()) }
    }

    /// The values of all headers of that name, which is in lower case.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a HeaderValue> + 'a {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value)
    }

    /// The reply's `correlation_id`: the request's, else its `message_id`.
    pub fn reply_correlation(&self) -> Option<&str> {
        let given = |id: &'_ Option<String>| id.as_deref().is_some_and(|id| !id.is_empty());
        [&self.correlation_id, &self.message_id].into_iter().find(|id| given(id)).and_then(|id| id.as_deref())
    }

    /// The idempotency key. An empty `message_id` counts as missing.
    ///
    /// # Errors
    ///
    /// `field_invalid` for more than 255 bytes, or a control character.
    pub fn idempotency_key(&self) -> Result<Option<&str>, Refusal> {
        match self.message_id.as_deref() {
            None | Some("") => Ok(None),
            Some(id) if id.len() > 255 || has_control(id) => {
                let message = "the message_id must have at most 255 bytes and no control characters";
                Err(Refusal::new(Code::FieldInvalid, message).field("message_id"))
            }
            Some(id) => Ok(Some(id)),
        }
    }

    /// Whether no row can own its message id: there is none, or it is invalid.
    pub fn is_anonymous(&self) -> bool {
        !matches!(self.idempotency_key(), Ok(Some(_)))
    }

    /// Whether the message is what a worker writes to a retry queue for this session.
    pub(crate) fn is_bare_copy(&self, session: Uuid) -> bool {
        self.body == Self::copy_body(session)
    }

    /// The body of a retry copy: the session's row has all that the invite needs.
    pub(crate) fn copy_body(session: Uuid) -> Vec<u8> {
        format!(r#"{{"sessionId":"{session}"}}"#).into_bytes()
    }

    /// The timestamp in seconds.
    pub(crate) fn timestamp_seconds(&self) -> Option<u64> {
        self.timestamp.map(|timestamp| written(timestamp).as_secs())
    }

    /// When the request was published, at the latest, by its timestamp. `None` too if that lies in the future by more than
    /// clocks differ.
    pub(crate) fn published(&self) -> Option<SystemTime> {
        let published = UNIX_EPOCH.checked_add(written(self.timestamp?))?;
        (published <= SystemTime::now() + CLOCKS_APART).then_some(published)
    }

    /// How old the request is at `now`, at least. `None` without a timestamp. A timestamp in the future counts as `now`.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        let written = written(self.timestamp?);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(now.saturating_sub(written))
    }

    /// How far the timestamp lies in the future of `now`, at least; zero for one that does not. `None` without a timestamp.
    pub(crate) fn ahead(&self, now: SystemTime) -> Option<Duration> {
        // Whole seconds stand for their beginning here.
        let written = written(self.timestamp?).saturating_sub(Duration::from_millis(999));
        Some(written.saturating_sub(now.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    /// The request's own limit on its age: `expiration` as a duration. A value that is not a number sets no limit.
    pub fn expiration_limit(&self) -> Option<Duration> {
        self.expiration.as_deref()?.trim().parse().ok().map(Duration::from_millis)
    }

    /// The trace that the request belongs to, from its header `traceparent`.
    pub fn traceparent(&self) -> Option<TraceParent> {
        self.headers("traceparent").find_map(|value| match value {
            HeaderValue::Text(text) => TraceParent::parse(text),
            _ => None,
        })
    }

    /// The trace that others continue: this delivery's own span, or what the request carries.
    pub(crate) fn continued_trace(&self) -> Option<TraceParent> {
        self.trace.context().or_else(|| self.traceparent().map(TraceParent::child))
    }

    /// A hash of everything that the sender wrote, except the trace. It is equal for a redelivery of the message.
    pub fn sha256(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update(bytes.len().to_be_bytes());
            hash.update(bytes);
        };
        part(&self.body);
        part(self.message_id.as_deref().unwrap_or_default().as_bytes());
        part(self.correlation_id.as_deref().unwrap_or_default().as_bytes());
        part(self.reply_to.as_deref().unwrap_or_default().as_bytes());
        // Often the only difference between a new publish and the same request before.
        part(&self.timestamp.unwrap_or_default().to_be_bytes());
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "traceparent") {
            part(name.as_bytes());
            match value {
                HeaderValue::Text(text) => part(text.as_bytes()),
                HeaderValue::Integer(number) => part(&number.to_be_bytes()),
                HeaderValue::Other => part(b""),
            }
        }
        hash.finalize().into()
    }
}

/// The latest moment that a timestamp can mean, since 1970: whole seconds stand for any moment of their second.
fn written(timestamp: u64) -> Duration {
    if timestamp > FIRST_IN_MILLISECONDS {
        Duration::from_millis(timestamp)
    } else {
        Duration::from_secs(timestamp).saturating_add(Duration::from_millis(999))
    }
}

/// Whether there is a control character. The common case, printable ASCII alone, needs no decoding.
pub(crate) fn has_control(text: &str) -> bool {
    !text.bytes().all(|b| matches!(b, b' '..=b'~')) && text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_timestamp_is_in_seconds_or_milliseconds_and_never_in_the_future() {
        let age = |timestamp| Envelope { timestamp, ..Envelope::default() }.age(at(2_000_000_000));
        assert_eq!(age(None), None);
        assert_eq!(age(Some(1_999_999_940)), Some(Duration::from_millis(59_001)));
        assert_eq!(age(Some(1_999_999_940_000)), Some(Duration::from_mins(1)));
        assert_eq!(age(Some(2_000_000_900)), Some(Duration::ZERO));
        assert_eq!(age(Some(u64::MAX)), Some(Duration::ZERO));
    }

    #[test]
    fn an_empty_id_counts_as_missing_and_one_with_control_characters_is_refused() {
        let with = |id: &str| Envelope { message_id: Some(id.to_owned()), ..Envelope::default() };
        assert_eq!(with("").idempotency_key(), Ok(None));
        assert_eq!(with("a-1").idempotency_key(), Ok(Some("a-1")));
        for bad in ["a\nb", "\0", "\u{7f}", "\u{85}"] {
            assert_eq!(with(bad).idempotency_key().unwrap_err().field.as_deref(), Some("message_id"));
        }
    }

    #[test]
    fn the_hash_differs_between_requests_and_not_between_redeliveries() {
        let one = Envelope { body: b"{}".to_vec(), message_id: Some("a".into()), ..Envelope::default() };
        let again = Envelope { redelivered: true, ..one.clone() };
        let other = Envelope { message_id: Some("b".into()), ..one.clone() };
        assert_eq!(one.sha256(), again.sha256());
        assert_ne!(one.sha256(), other.sha256());
    }

    #[test]
    fn a_reply_correlates_by_correlation_id_else_by_message_id() {
        let mut envelope = Envelope { message_id: Some("m".into()), ..Envelope::default() };
        assert_eq!(envelope.reply_correlation(), Some("m"));
        envelope.correlation_id = Some(String::new());
        assert_eq!(envelope.reply_correlation(), Some("m"));
        envelope.correlation_id = Some("c".into());
        assert_eq!(envelope.reply_correlation(), Some("c"));
    }

    proptest::proptest! {
        #[test]
        fn control_characters_are_found_at_any_position(text in "[a~ \u{1f}\u{7f}-\u{a0}é]{0,9}") {
            proptest::prop_assert_eq!(has_control(&text), text.chars().any(char::is_control));
        }
    }
}
