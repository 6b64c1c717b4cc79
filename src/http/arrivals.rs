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

/// Bytes of all bodies together that have not come whole yet. A whole body counts against the gateway's places.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// The turn of a connection that does not wait.
const NONE: u64 = 0;

/// All connections that wait.
#[derive(Debug)]
pub struct Arrivals {
    waiting: Mutex<Waiting>,
    /// A connection has begun to wait.
    began: Notify,
    bytes: AtomicUsize,
    most_bytes: usize,
}

/// By turn, so the first has waited longest.
#[derive(Debug, Default)]
struct Waiting {
    last_turn: u64,
    connections: BTreeMap<u64, Arc<State>>,
}

#[derive(Debug, Default)]
struct State {
    turn: AtomicU64,
    /// Of a body that has not come whole yet.
    bytes: AtomicUsize,
    close: Notify,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self::new(MOST_BYTES)
    }
}

impl Arrivals {
    fn new(most_bytes: usize) -> Self {
        Self { waiting: Mutex::default(), began: Notify::new(), bytes: AtomicUsize::new(0), most_bytes }
    }

    /// A new connection, which waits for its first head.
    pub fn arrive(self: &Arc<Self>) -> Arrival {
        let arrival = Arrival { all: self.clone(), state: Arc::default() };
        arrival.begin();
        arrival
    }

    /// Closes the connection that has waited longest; while none waits, the next one that does.
    pub async fn make_room(&self) {
        loop {
            let longest = self.lock().connections.pop_first();
            if let Some((_, longest)) = longest {
                self.close(&longest);
                return;
            }
            self.began.notified().await;
        }
    }

    /// Closes the connection that has waited longest among those with a part of a body.
    fn make_room_for_bodies(&self) {
        let mut waiting = self.lock();
        let holds = |state: &Arc<State>| state.bytes.load(Ordering::Relaxed) > 0;
        let longest = waiting.connections.iter().find(|(_, state)| holds(state)).map(|(turn, _)| *turn);
        let longest = longest.and_then(|turn| waiting.connections.remove(&turn));
        drop(waiting);
        if let Some(longest) = longest {
            self.close(&longest);
        }
    }

    fn close(&self, state: &State) {
        self.release(state);
        state.close.notify_one();
    }

    fn release(&self, state: &State) {
        self.bytes.fetch_sub(state.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection among them.
#[derive(Debug)]
pub struct Arrival {
    all: Arc<Arrivals>,
    state: Arc<State>,
}

impl Arrival {
    /// It waits for its client from now on.
    pub fn begin(&self) {
        let mut waiting = self.all.lock();
        waiting.connections.remove(&self.state.turn.load(Ordering::Relaxed));
        waiting.last_turn += 1;
        let turn = waiting.last_turn;
        waiting.connections.insert(turn, self.state.clone());
        self.state.turn.store(turn, Ordering::Relaxed);
        drop(waiting);
        self.all.began.notify_one();
    }

    /// So many more bytes of its body have come.
    pub fn holds(&self, bytes: usize) {
        self.state.bytes.fetch_add(bytes, Ordering::Relaxed);
        let all = self.all.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > self.all.most_bytes {
            self.all.make_room_for_bodies();
        }
    }

    /// Its request is there whole. `false`: the connection is being closed for another one.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let turn = self.state.turn.swap(NONE, Ordering::Relaxed);
        self.all.release(&self.state);
        self.all.lock().connections.remove(&turn).is_some()
    }

    pub fn is_waiting(&self) -> bool {
        self.state.turn.load(Ordering::Relaxed) != NONE
    }

    /// Returns when the connection has to be closed for another one.
    pub async fn closed(&self) {
        self.state.close.notified().await;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let _ = self.is_whole();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn is_closed(arrival: &Arrival) -> bool {
        arrival.closed().now_or_never().is_some()
    }

    #[test]
    fn the_one_that_has_waited_longest_makes_room() {
        let all = Arc::new(Arrivals::default());
        let [first, second, third] = [0; 3].map(|_| all.arrive());
        // Its request is there, and answered: it waits anew.
        assert!(first.is_whole() && !first.is_waiting());
        first.begin();
        drop(second);
        all.make_room().now_or_never().expect("one waits");
        assert_eq!([is_closed(&first), is_closed(&third)], [false, true]);
        assert!(!third.is_whole(), "it is too late for its request");
        all.make_room().now_or_never().expect("one waits");
        assert!(is_closed(&first));
    }

    #[tokio::test]
    async fn while_none_waits_the_next_one_makes_room() {
        let all = Arc::new(Arrivals::default());
        let busy = all.arrive();
        assert!(busy.is_whole());
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
        let all = Arc::new(Arrivals::new(100));
        let (idle, slow, fast) = (all.arrive(), all.arrive(), all.arrive());
        slow.holds(60);
        fast.holds(40);
        assert!(!is_closed(&slow) && !is_closed(&fast));
        fast.holds(1);
        assert_eq!([&idle, &slow, &fast].map(is_closed), [false, true, false]);
        assert_eq!(all.bytes.load(Ordering::Relaxed), 41);
        assert!(fast.is_whole());
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }
}
