//! The publishers' journal: published messages, the broker's confirms, and the replies.

use crate::session_events::SessionEvent;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};
use time::OffsetDateTime;
use tokio::sync::Notify;

/// A message of an invite, or its HTTP request. It has its own correlation id.
#[derive(Debug, Clone)]
pub(crate) struct PublishedMessage {
    pub phone: String,
    pub at: OffsetDateTime,
    /// When the broker confirmed it. Without a confirm the broker may have it or not.
    pub confirmed: Option<OffsetDateTime>,
}

#[derive(Debug, Clone)]
pub(crate) struct ReceivedReply {
    /// The index of the message that it answers.
    pub message: usize,
    pub at: OffsetDateTime,
    pub body: Vec<u8>,
    pub is_dead_letter: bool,
}

/// The messages of an invite, and the replies to them.
#[derive(Debug, Clone, Default)]
pub(crate) struct JournalEntry {
    pub messages: Vec<PublishedMessage>,
    pub replies: Vec<ReceivedReply>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// `x-kind`.
    pub kind: String,
    /// `x-reason`.
    pub reason: String,
    pub correlation: String,
}

/// The entries of all invites.
#[derive(Debug)]
pub(crate) struct Journal {
    entries: Mutex<Vec<JournalEntry>>,
    new_reply: Vec<Notify>,
    other: Mutex<OtherMessages>,
}

/// Messages that belong to no entry.
#[derive(Debug, Clone, Default)]
pub(crate) struct OtherMessages {
    /// Replies with an unknown correlation id.
    pub strays: Vec<String>,
    pub dead: Vec<DeadLetter>,
    pub events: Vec<SessionEvent>,
    /// What the publishers received against the rules, with its count.
    pub complaints: BTreeMap<String, u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no task panics while it holds the journal")
}

impl Journal {
    pub(crate) fn new(invites: usize) -> Self {
        Self {
            entries: Mutex::new(vec![JournalEntry::default(); invites]),
            new_reply: (0..invites).map(|_| Notify::new()).collect(),
            other: Mutex::default(),
        }
    }

    /// Notes that a message is published now. Gives its index among the invite's messages.
    pub(crate) fn note_publish(&self, invite: usize, phone: &str) -> usize {
        let entry = &mut lock(&self.entries)[invite];
        let message =
            PublishedMessage { phone: phone.to_owned(), at: OffsetDateTime::now_utc(), confirmed: None };
        entry.messages.push(message);
        entry.messages.len() - 1
    }

    /// Whether no message of the invite was published yet.
    pub(crate) fn is_new(&self, invite: usize) -> bool {
        lock(&self.entries)[invite].messages.is_empty()
    }

    pub(crate) fn note_confirm(&self, invite: usize, message: usize) {
        lock(&self.entries)[invite].messages[message].confirmed = Some(OffsetDateTime::now_utc());
    }

    pub(crate) fn note_reply(&self, correlation: &str, body: Vec<u8>, is_dead_letter: bool) {
        let known = parse_correlation(correlation).filter(|(invite, message)| {
            lock(&self.entries).get(*invite).is_some_and(|entry| *message < entry.messages.len())
        });
        let Some((invite, message)) = known else {
            lock(&self.other).strays.push(format!("{correlation:?}: {}", String::from_utf8_lossy(&body)));
            return;
        };
        let reply = ReceivedReply { message, at: OffsetDateTime::now_utc(), body, is_dead_letter };
        lock(&self.entries)[invite].replies.push(reply);
        self.new_reply[invite].notify_waiters();
    }

    pub(crate) fn note_dead_letter(&self, letter: DeadLetter) {
        lock(&self.other).dead.push(letter);
    }

    pub(crate) fn note_event(&self, event: SessionEvent) {
        lock(&self.other).events.push(event);
    }

    /// Counts something that is against the rules.
    pub(crate) fn complain(&self, what: &str) {
        *lock(&self.other).complaints.entry(what.to_owned()).or_default() += 1;
    }

    /// Waits for a reply to the message. Of several, it gives the last.
    pub(crate) async fn reply(&self, invite: usize, message: usize) -> Vec<u8> {
        loop {
            // Before the look, so that no reply is missed between the two.
            let new_reply = self.new_reply[invite].notified();
            let replies = lock(&self.entries)[invite].replies.clone();
            if let Some(reply) = replies.into_iter().rfind(|reply| reply.message == message) {
                return reply.body;
            }
            new_reply.await;
        }
    }

    /// How many invites were published, and how many of these have a reply.
    pub(crate) fn progress(&self) -> (usize, usize) {
        let entries = lock(&self.entries);
        let published = entries.iter().filter(|entry| !entry.messages.is_empty());
        (published.clone().count(), published.filter(|entry| !entry.replies.is_empty()).count())
    }

    pub(crate) fn entries(&self) -> Vec<JournalEntry> {
        lock(&self.entries).clone()
    }

    pub(crate) fn other(&self) -> OtherMessages {
        lock(&self.other).clone()
    }
}

/// The correlation id of a message.
pub(crate) fn correlation(invite: usize, message: usize) -> String {
    format!("{invite}.{message}")
}

fn parse_correlation(correlation: &str) -> Option<(usize, usize)> {
    let (invite, message) = correlation.split_once('.')?;
    Some((invite.parse().ok()?, message.parse().ok()?))
}
