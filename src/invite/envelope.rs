//! A delivery, without the broker's client: what an invite can be read from.

use crate::masked::debug_shows;
use crate::{
    refusal::{Code, Refusal},
    traceparent::TraceParent,
    trouble::Trouble,
};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A timestamp above this is in milliseconds (contract, section 2).
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// A header that the worker reads; the others are never looked at.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderValue {
    Text(String),
    Integer(i64),
    /// Of a type, or in bytes, that no header of ours has.
    Other,
}

debug_shows!(HeaderValue {});

/// One message as the broker delivered it.
#[derive(Clone, Default)]
pub struct Envelope {
    pub body: Vec<u8>,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    pub reply_to: Option<String>,
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    /// As the sender wrote it: seconds, or milliseconds.
    pub timestamp: Option<u64>,
    /// Milliseconds, as a string of digits.
    pub expiration: Option<String>,
    /// The headers `authorization`, `x-gssnid`, `groupid` and `traceparent`, their names in lower case.
    pub headers: Vec<(String, HeaderValue)>,
    pub redelivered: bool,
    /// When it came.
    pub received: Option<Instant>,
    /// A session's id and ticket: the message says that it is a copy of ours, from a retry queue. The row decides.
    pub ticket: Option<(Uuid, Uuid)>,
    /// The broker dropped it from the requests because its `expiration` had run out.
    pub expired_in_queue: bool,
    /// Cancelled once the broker takes the message back, as when its connection is lost: it will come again, so what
    /// is not begun by then is left to that delivery.
    pub withdrawn: CancellationToken,
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl Envelope {
    /// Whether a worker may have had it before: the broker marks no redelivery on the queue of what it dropped.
    pub fn came_before(&self) -> bool {
        self.redelivered || self.expired_in_queue
    }

    /// # Errors
    ///
    /// [`Trouble::Stopping`] once the broker has taken the message back.
    pub fn ensure_held(&self) -> Result<(), Trouble> {
        if self.withdrawn.is_cancelled() { Err(Trouble::Stopping) } else { Ok(()) }
    }

    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a HeaderValue> + 'a {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value)
    }

    /// What the reply's `correlation_id` is: the request's, else its `message_id`.
    pub fn reply_correlation(&self) -> Option<&str> {
        let given = |id: &'_ Option<String>| id.as_deref().is_some_and(|id| !id.is_empty());
        [&self.correlation_id, &self.message_id].into_iter().find(|id| given(id)).and_then(|id| id.as_deref())
    }

    /// The idempotency key: at most 255 bytes without control characters; an empty one is none.
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

    /// Whether its row, if it has one, stands for no message id.
    pub fn is_anonymous(&self) -> bool {
        !matches!(self.idempotency_key(), Ok(Some(_)))
    }

    /// How old the request is at `now`, at the least; `None` without a timestamp. The future counts as now.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        let given = self.timestamp?;
        let written = if given > MILLISECONDS_FROM {
            Duration::from_millis(given)
        } else {
            // Any moment of that second.
            Duration::from_secs(given).saturating_add(Duration::from_millis(999))
        };
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(now.saturating_sub(written))
    }

    /// The request's own limit on its age.
    pub fn own_limit(&self) -> Option<Duration> {
        self.expiration.as_deref()?.trim().parse().ok().map(Duration::from_millis)
    }

    /// The trace that the request belongs to, if it says so in W3C's form.
    pub fn traceparent(&self) -> Option<TraceParent> {
        self.headers("traceparent").find_map(|value| match value {
            HeaderValue::Text(text) => TraceParent::parse(text),
            _ => None,
        })
    }

    /// Of all that the sender wrote and that counts: equal for a redelivery of the message.
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
        // A new publish of the same request mostly differs in this alone.
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

/// Whether there is a control character. Mostly all is printable ASCII, which is told without decoding.
pub fn has_control(text: &str) -> bool {
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
    fn an_empty_id_is_none_and_one_with_control_characters_is_refused() {
        let with = |id: &str| Envelope { message_id: Some(id.to_owned()), ..Envelope::default() };
        assert_eq!(with("").idempotency_key(), Ok(None));
        assert_eq!(with("a-1").idempotency_key(), Ok(Some("a-1")));
        for bad in ["a\nb", "\0", "\u{7f}", "\u{85}"] {
            assert_eq!(with(bad).idempotency_key().unwrap_err().field.as_deref(), Some("message_id"));
        }
    }

    #[test]
    fn the_hash_tells_requests_apart_and_redeliveries_not() {
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
        fn control_characters_are_found_wherever_they_stand(text in "[a~ \u{1f}\u{7f}-\u{a0}é]{0,9}") {
            proptest::prop_assert_eq!(has_control(&text), text.chars().any(char::is_control));
        }
    }
}
