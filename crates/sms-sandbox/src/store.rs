//! The newest accepted messages, in memory. They are found by id, by number and by age.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use rand::RngExt;
use time::OffsetDateTime;

use super::message::{AcceptedMessage, DeliveryOutcome, MessageDraft, MessageSid};

/// Messages in the order of their acceptance, which `seq` counts. So a message's index in the queue is its
/// `seq` minus the `seq` of the oldest message.
pub(super) struct MessageStore {
    keep: usize,
    messages: VecDeque<Arc<AcceptedMessage>>,
    next_seq: u64,
    by_sid: HashMap<MessageSid, u64>,
    by_to: HashMap<Box<str>, VecDeque<u64>>,
    /// How often each pair of number and body is among `messages`, by the pair's hash.
    copies: HashMap<u64, u32>,
    hasher: RandomState,
    doubled: u64,
    epoch: u64,
}

impl MessageStore {
    /// Keeps the newest `keep` messages.
    pub(crate) fn new(keep: usize) -> Self {
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

    pub(crate) fn accept(&mut self, draft: MessageDraft, deliver: DeliveryOutcome) -> Arc<AcceptedMessage> {
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
        let sid = MessageSid(rand::rng().random());
        self.by_sid.insert(sid, seq);
        self.by_to.entry(draft.to.clone()).or_default().push_back(seq);
        let message =
            Arc::new(AcceptedMessage { seq, sid, draft, received: OffsetDateTime::now_utc(), deliver });
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

    /// Removes every message. The numbering continues.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
        self.by_sid.clear();
        self.by_to.clear();
        self.copies.clear();
        self.doubled = 0;
        self.epoch = rand::rng().random();
    }

    pub(crate) fn find(&self, sid: MessageSid) -> Option<&Arc<AcceptedMessage>> {
        self.at(*self.by_sid.get(&sid)?)
    }

    fn at(&self, seq: u64) -> Option<&Arc<AcceptedMessage>> {
        let index = seq.checked_sub(self.messages.front()?.seq)?;
        self.messages.get(usize::try_from(index).ok()?)
    }

    /// The messages, newest first: all of them, or those to one number.
    pub(crate) fn newest_first<'a>(
        &'a self,
        to: Option<&str>,
    ) -> Box<dyn Iterator<Item = &'a Arc<AcceptedMessage>> + 'a> {
        match to {
            None => Box::new(self.messages.iter().rev()),
            Some(to) => {
                let seqs = self.by_to.get(to).into_iter().flatten().rev();
                Box::new(seqs.filter_map(|seq| self.at(*seq)))
            }
        }
    }

    /// The newest `limit` messages after the one numbered `after`, oldest first.
    pub(crate) fn later_than(&self, after: u64, limit: usize) -> Vec<Arc<AcceptedMessage>> {
        let first = self.messages.partition_point(|message| message.seq <= after);
        let first = first.max(self.messages.len().saturating_sub(limit));
        self.messages.range(first..).cloned().collect()
    }

    pub(crate) fn kept(&self) -> usize {
        self.messages.len()
    }

    /// How many pairs of number and body were accepted more than once, among the kept messages.
    pub(crate) fn doubled(&self) -> u64 {
        self.doubled
    }

    /// Changes when the sandbox starts or its messages are cleared.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageOrigin;

    fn draft(to: &str, body: &str) -> MessageDraft {
        MessageDraft {
            account_sid: "AC1".into(),
            to: to.into(),
            sender: MessageOrigin::From("+15005550006".into()),
            body: body.into(),
            validity_period: 600,
            status_callback: None,
            traceparent: None,
        }
    }

    #[test]
    fn a_full_store_removes_the_oldest_message_from_every_index() {
        let mut store = MessageStore::new(2);
        let first = store.accept(draft("+1", "a"), DeliveryOutcome::None);
        for body in ["b", "c"] {
            store.accept(draft("+2", body), DeliveryOutcome::None);
        }
        assert!(store.find(first.sid).is_none());
        assert_eq!(store.newest_first(Some("+1")).count(), 0);
        let bodies: Vec<_> = store.newest_first(Some("+2")).map(|message| &*message.draft.body).collect();
        assert_eq!(bodies, ["c", "b"]);
        assert_eq!((store.by_sid.len(), store.by_to.len(), store.copies.len()), (2, 1, 2));
    }

    #[test]
    fn a_repeated_pair_counts_once() {
        let mut store = MessageStore::new(10);
        for (to, body) in [("+1", "a"), ("+1", "a"), ("+1", "a"), ("+2", "a"), ("+1", "b"), ("+1", "b")] {
            store.accept(draft(to, body), DeliveryOutcome::None);
        }
        assert_eq!(store.doubled(), 2);
        store.clear();
        assert_eq!((store.doubled(), store.kept()), (0, 0));
    }

    #[test]
    fn later_messages_are_the_newest_ones_oldest_first() {
        let mut store = MessageStore::new(10);
        for body in ["a", "b", "c", "d"] {
            store.accept(draft("+1", body), DeliveryOutcome::None);
        }
        let seqs = |after, limit| store.later_than(after, limit).iter().map(|m| m.seq).collect::<Vec<_>>();
        assert_eq!(seqs(0, 10), [1, 2, 3, 4]);
        assert_eq!(seqs(1, 2), [3, 4]);
        assert_eq!(seqs(4, 10), [0_u64; 0]);
    }
}
