//! The accepted messages, in memory: the newest so many, found by id, by number and by age.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use rand::RngExt;
use time::OffsetDateTime;

use super::message::{Deliver, Draft, Message, Sid};

/// Messages in the order of their acceptance. A `seq` is a place in that order, so that a message's
/// place in the queue is its `seq` less the oldest one's.
pub(super) struct Store {
    keep: usize,
    messages: VecDeque<Arc<Message>>,
    next_seq: u64,
    by_sid: HashMap<Sid, u64>,
    by_to: HashMap<Box<str>, VecDeque<u64>>,
    /// How often each (to, body) among `messages` was accepted, by its hash.
    copies: HashMap<u64, u32>,
    hasher: RandomState,
    doubled: u64,
    epoch: u64,
}

impl Store {
    /// Keeps the newest `keep` messages.
    pub fn new(keep: usize) -> Self {
        Self {
            keep,
            messages: VecDeque::new(),
            next_seq: 1,
            by_sid: HashMap::new(),
            by_to: HashMap::new(),
            copies: HashMap::new(),
            hasher: RandomState::new(),
            doubled: 0,
            epoch: rand::rng().random(),
        }
    }

    pub fn accept(&mut self, draft: Draft, deliver: Deliver) -> Arc<Message> {
        if self.messages.len() >= self.keep {
            self.forget_oldest();
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let copies = self.copies.entry(self.hasher.hash_one((&draft.to, &draft.body))).or_default();
        *copies += 1;
        if *copies == 2 {
            self.doubled += 1;
        }
        let sid = Sid(rand::rng().random());
        self.by_sid.insert(sid, seq);
        self.by_to.entry(draft.to.clone()).or_default().push_back(seq);
        let message = Arc::new(Message { seq, sid, draft, received: OffsetDateTime::now_utc(), deliver });
        self.messages.push_back(Arc::clone(&message));
        message
    }

    fn forget_oldest(&mut self) {
        let Some(message) = self.messages.pop_front() else { return };
        self.by_sid.remove(&message.sid);
        if let Some(seqs) = self.by_to.get_mut(&message.draft.to) {
            seqs.pop_front();
            if seqs.is_empty() {
                self.by_to.remove(&message.draft.to);
            }
        }
        let pair = self.hasher.hash_one((&message.draft.to, &message.draft.body));
        if let Some(copies) = self.copies.get_mut(&pair) {
            *copies -= 1;
            if *copies == 0 {
                self.copies.remove(&pair);
            }
        }
    }

    /// Forgets every message. The numbering goes on.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.by_sid.clear();
        self.by_to.clear();
        self.copies.clear();
        self.doubled = 0;
        self.epoch = rand::rng().random();
    }

    pub fn find(&self, sid: Sid) -> Option<&Arc<Message>> {
        self.at(*self.by_sid.get(&sid)?)
    }

    fn at(&self, seq: u64) -> Option<&Arc<Message>> {
        let place = seq.checked_sub(self.messages.front()?.seq)?;
        self.messages.get(usize::try_from(place).ok()?)
    }

    /// The messages, newest first, or only those to one number.
    pub fn newest_first<'a>(&'a self, to: Option<&str>) -> Box<dyn Iterator<Item = &'a Arc<Message>> + 'a> {
        match to {
            None => Box::new(self.messages.iter().rev()),
            Some(to) => {
                let seqs = self.by_to.get(to).into_iter().flatten().rev();
                Box::new(seqs.filter_map(|seq| self.at(*seq)))
            }
        }
    }

    /// The messages that came later than the one numbered `after`, oldest first; the newest `limit` of them.
    pub fn later_than(&self, after: u64, limit: usize) -> Vec<Arc<Message>> {
        let first = self.messages.partition_point(|message| message.seq <= after);
        let first = first.max(self.messages.len().saturating_sub(limit));
        self.messages.range(first..).cloned().collect()
    }

    pub fn kept(&self) -> usize {
        self.messages.len()
    }

    /// How many (to, body) pairs were accepted more than once, as far back as messages are kept.
    pub fn doubled(&self) -> u64 {
        self.doubled
    }

    /// Changes when the numbering or the messages begin anew.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Sender;

    fn draft(to: &str, body: &str) -> Draft {
        Draft {
            account_sid: "AC1".into(),
            to: to.into(),
            sender: Sender::From("+15005550006".into()),
            body: body.into(),
            validity_period: 600,
            status_callback: None,
            traceparent: None,
        }
    }

    #[test]
    fn the_oldest_go_when_it_is_full_and_leave_nothing_behind() {
        let mut store = Store::new(2);
        let first = store.accept(draft("+1", "a"), Deliver::None);
        for body in ["b", "c"] {
            store.accept(draft("+2", body), Deliver::None);
        }
        assert!(store.find(first.sid).is_none());
        assert_eq!(store.newest_first(Some("+1")).count(), 0);
        let bodies: Vec<_> = store.newest_first(Some("+2")).map(|message| &*message.draft.body).collect();
        assert_eq!(bodies, ["c", "b"]);
        assert_eq!((store.by_sid.len(), store.by_to.len(), store.copies.len()), (2, 1, 2));
    }

    #[test]
    fn a_pair_counts_as_doubled_once() {
        let mut store = Store::new(10);
        for (to, body) in [("+1", "a"), ("+1", "a"), ("+1", "a"), ("+2", "a"), ("+1", "b"), ("+1", "b")] {
            store.accept(draft(to, body), Deliver::None);
        }
        assert_eq!(store.doubled(), 2);
        store.clear();
        assert_eq!((store.doubled(), store.kept()), (0, 0));
    }

    #[test]
    fn later_messages_come_oldest_first_and_the_newest_of_them() {
        let mut store = Store::new(10);
        for body in ["a", "b", "c", "d"] {
            store.accept(draft("+1", body), Deliver::None);
        }
        let seqs = |after, limit| store.later_than(after, limit).iter().map(|m| m.seq).collect::<Vec<_>>();
        assert_eq!(seqs(0, 10), [1, 2, 3, 4]);
        assert_eq!(seqs(1, 2), [3, 4]);
        assert_eq!(seqs(4, 10), [0_u64; 0]);
    }
}
