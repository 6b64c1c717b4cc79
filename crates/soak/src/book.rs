//! The publishers' own logs: what was published, what the broker confirmed, and what was answered.

use crate::events::Event;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};
use time::OffsetDateTime;
use tokio::sync::Notify;

/// One message that was handed to the broker, under a correlation id of its own.
#[derive(Debug, Clone)]
pub struct Publish {
    pub phone: String,
    pub at: OffsetDateTime,
    /// When the broker confirmed it. Without a confirm it may have it or not.
    pub confirmed: Option<OffsetDateTime>,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Which publish it answers.
    pub publish: usize,
    pub at: OffsetDateTime,
    pub body: Vec<u8>,
    /// Whether it lay among the dead letters.
    pub dead: bool,
}

/// All that is known of an invite on its publisher's side.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    pub publishes: Vec<Publish>,
    pub heard: Vec<Heard>,
}

/// What lay among the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// `x-kind`.
    pub kind: String,
    /// `x-reason`.
    pub reason: String,
    pub correlation: String,
}

/// All invites' entries.
#[derive(Debug)]
pub struct Book {
    entries: Mutex<Vec<Entry>>,
    heard: Vec<Notify>,
    loose: Mutex<Loose>,
}

/// What belongs to no entry.
#[derive(Debug, Clone, Default)]
pub struct Loose {
    /// Replies with a correlation id that nobody used.
    pub strays: Vec<String>,
    pub dead: Vec<DeadLetter>,
    pub events: Vec<Event>,
    /// What the publishers met that they should not have.
    pub complaints: BTreeMap<String, u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with the book open")
}

impl Book {
    pub fn new(invites: usize) -> Self {
        Self {
            entries: Mutex::new(vec![Entry::default(); invites]),
            heard: (0..invites).map(|_| Notify::new()).collect(),
            loose: Mutex::default(),
        }
    }

    /// Notes that a message is handed over now; which publish of its invite it is.
    pub fn publishing(&self, invite: usize, phone: &str) -> usize {
        let entry = &mut lock(&self.entries)[invite];
        let publish = Publish { phone: phone.to_owned(), at: OffsetDateTime::now_utc(), confirmed: None };
        entry.publishes.push(publish);
        entry.publishes.len() - 1
    }

    /// Whether it was not published yet.
    pub fn is_new(&self, invite: usize) -> bool {
        lock(&self.entries)[invite].publishes.is_empty()
    }

    pub fn confirmed(&self, invite: usize, publish: usize) {
        lock(&self.entries)[invite].publishes[publish].confirmed = Some(OffsetDateTime::now_utc());
    }

    /// Notes an answer.
    pub fn heard(&self, correlation: &str, body: Vec<u8>, dead: bool) {
        let known = parse(correlation).filter(|(invite, publish)| {
            lock(&self.entries).get(*invite).is_some_and(|entry| *publish < entry.publishes.len())
        });
        let Some((invite, publish)) = known else {
            lock(&self.loose).strays.push(format!("{correlation:?}: {}", String::from_utf8_lossy(&body)));
            return;
        };
        lock(&self.entries)[invite].heard.push(Heard { publish, at: OffsetDateTime::now_utc(), body, dead });
        self.heard[invite].notify_waiters();
    }

    pub fn dead_letter(&self, letter: DeadLetter) {
        lock(&self.loose).dead.push(letter);
    }

    pub fn event(&self, event: Event) {
        lock(&self.loose).events.push(event);
    }

    /// Counts something that should not be.
    pub fn complain(&self, what: &str) {
        *lock(&self.loose).complaints.entry(what.to_owned()).or_default() += 1;
    }

    /// Waits for an answer to that publish, and gives the last one.
    pub async fn answer(&self, invite: usize, publish: usize) -> Vec<u8> {
        loop {
            // Before the look, so that no answer comes between the two.
            let news = self.heard[invite].notified();
            let found = lock(&self.entries)[invite].heard.iter().rfind(|h| h.publish == publish).cloned();
            if let Some(heard) = found {
                return heard.body;
            }
            news.await;
        }
    }

    /// How many invites were published, and how many of these have an answer.
    pub fn progress(&self) -> (usize, usize) {
        let entries = lock(&self.entries);
        let published = entries.iter().filter(|entry| !entry.publishes.is_empty());
        (published.clone().count(), published.filter(|entry| !entry.heard.is_empty()).count())
    }

    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }

    pub fn loose(&self) -> Loose {
        lock(&self.loose).clone()
    }
}

/// The correlation id of one publish.
pub fn correlation(invite: usize, publish: usize) -> String {
    format!("{invite}.{publish}")
}

fn parse(correlation: &str) -> Option<(usize, usize)> {
    let (invite, publish) = correlation.split_once('.')?;
    Some((invite.parse().ok()?, publish.parse().ok()?))
}
