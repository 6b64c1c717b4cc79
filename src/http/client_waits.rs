//! Connections that wait for their client: for the head or the body of a request, or for the client to read an answer.
//! When room is needed, the connection that has waited longest is closed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

/// Bytes of all unfinished bodies together. A request with a whole body takes one of the gateway's permits.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// The number of a connection that does not wait.
const NOT_WAITING: u64 = 0;

/// All connections that wait for their client.
#[derive(Debug)]
pub(super) struct ClientWaits {
    queue: Mutex<WaitQueue>,
    /// A connection has begun to wait.
    began: Notify,
    bytes: AtomicUsize,
    most_bytes: usize,
}

/// Connections in the order in which they began to wait: the first has waited longest.
#[derive(Debug, Default)]
struct WaitQueue {
    last_number: u64,
    connections: BTreeMap<u64, Arc<WaitState>>,
}

#[derive(Debug, Default)]
struct WaitState {
    /// Its number in the queue.
    number: AtomicU64,
    /// Bytes of an unfinished body.
    bytes: AtomicUsize,
    close: Notify,
}

impl Default for ClientWaits {
    fn default() -> Self {
        Self::new(MOST_BYTES)
    }
}

impl ClientWaits {
    fn new(most_bytes: usize) -> Self {
        Self { queue: Mutex::default(), began: Notify::new(), bytes: AtomicUsize::new(0), most_bytes }
    }

    /// Adds a new connection, which waits for its first head.
    pub(super) fn add(self: &Arc<Self>) -> ClientWait {
        let wait = ClientWait { all: self.clone(), state: Arc::default() };
        wait.begin();
        wait
    }

    /// Closes the connection that has waited longest. If none waits, it closes the next one that begins to.
    pub(super) async fn make_room(&self) {
        loop {
            let longest = self.lock().connections.pop_first();
            if let Some((_, longest)) = longest {
                self.close(&longest);
                return;
            }
            self.began.notified().await;
        }
    }

    /// Closes the connection that has waited longest among those with an unfinished body.
    fn make_room_for_bodies(&self) {
        let mut queue = self.lock();
        let has_body = |state: &Arc<WaitState>| state.bytes.load(Ordering::Relaxed) > 0;
        let longest = queue.connections.iter().find(|(_, state)| has_body(state)).map(|(number, _)| *number);
        let longest = longest.and_then(|number| queue.connections.remove(&number));
        drop(queue);
        if let Some(longest) = longest {
            self.close(&longest);
        }
    }

    fn close(&self, state: &WaitState) {
        self.release(state);
        state.close.notify_one();
    }

    fn release(&self, state: &WaitState) {
        self.bytes.fetch_sub(state.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, WaitQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The waits of one connection for its client.
#[derive(Debug)]
pub(crate) struct ClientWait {
    all: Arc<ClientWaits>,
    state: Arc<WaitState>,
}

impl ClientWait {
    /// The connection waits for its client from now on.
    pub(crate) fn begin(&self) {
        let mut queue = self.all.lock();
        queue.connections.remove(&self.state.number.load(Ordering::Relaxed));
        queue.last_number += 1;
        let number = queue.last_number;
        queue.connections.insert(number, self.state.clone());
        self.state.number.store(number, Ordering::Relaxed);
        drop(queue);
        self.all.began.notify_one();
    }

    /// Counts further bytes of its unfinished body.
    pub(crate) fn add_body_bytes(&self, bytes: usize) {
        self.state.bytes.fetch_add(bytes, Ordering::Relaxed);
        let all = self.all.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > self.all.most_bytes {
            self.all.make_room_for_bodies();
        }
    }

    /// Its whole request has arrived. `false`: the connection is being closed for another one.
    #[must_use]
    pub(crate) fn end(&self) -> bool {
        let number = self.state.number.swap(NOT_WAITING, Ordering::Relaxed);
        self.all.release(&self.state);
        self.all.lock().connections.remove(&number).is_some()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.state.number.load(Ordering::Relaxed) != NOT_WAITING
    }

    /// Waits until the connection has to be closed for another one.
    pub(crate) async fn closed(&self) {
        self.state.close.notified().await;
    }
}

impl Drop for ClientWait {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn is_closed(wait: &ClientWait) -> bool {
        wait.closed().now_or_never().is_some()
    }

    #[test]
    fn the_connection_that_has_waited_longest_makes_room() {
        let all = Arc::new(ClientWaits::default());
        let [first, second, third] = [0; 3].map(|_| all.add());
        // Its request was answered, so it waits again, behind the others.
        assert!(first.end() && !first.is_waiting());
        first.begin();
        drop(second);
        all.make_room().now_or_never().expect("one waits");
        assert_eq!([is_closed(&first), is_closed(&third)], [false, true]);
        assert!(!third.end(), "its request comes too late");
        all.make_room().now_or_never().expect("one waits");
        assert!(is_closed(&first));
    }

    #[tokio::test]
    async fn while_no_connection_waits_the_next_one_makes_room() {
        let all = Arc::new(ClientWaits::default());
        let busy = all.add();
        assert!(busy.end());
        let (cloned, making) = (all.clone(), tokio::sync::oneshot::channel());
        let task = tokio::spawn(async move {
            cloned.make_room().await;
            let _ = making.0.send(());
        });
        tokio::task::yield_now().await;
        assert!(!is_closed(&busy));
        busy.begin();
        making.1.await.expect("there is room");
        assert!(is_closed(&busy));
        task.await.expect("no panic");
    }

    #[test]
    fn bodies_are_bounded_together() {
        let all = Arc::new(ClientWaits::new(100));
        let (idle, slow, fast) = (all.add(), all.add(), all.add());
        slow.add_body_bytes(60);
        fast.add_body_bytes(40);
        assert!(!is_closed(&slow) && !is_closed(&fast));
        fast.add_body_bytes(1);
        assert_eq!([&idle, &slow, &fast].map(is_closed), [false, true, false]);
        assert_eq!(all.bytes.load(Ordering::Relaxed), 41);
        assert!(fast.end());
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }
}
