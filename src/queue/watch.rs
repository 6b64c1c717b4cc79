//! Whether a consumer still consumes: connected is not enough.

use super::{cause::Cause, connection::Unusable};
use lapin::{Connection, options::QueueDeclareOptions, types::FieldTable};
use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How often the broker is asked.
const EVERY: Duration = Duration::from_secs(2);
/// How long its answer may take before the line counts as dead.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long ago the last sign may be: a question, its answer, and some more.
const FRESH: Duration = Duration::from_secs(9);
/// How long the broker may take to carry a refused message on.
const CARRIED_ON: Duration = Duration::from_mins(1);
/// Questions in a row that may find messages waiting while the broker is busy with refused ones: headers that are nested
/// 26,000 deep take RabbitMQ many seconds.
const IDLE_WHILE_BUSY: u32 = 15;
/// Those that are refused within such a time are counted together.
const TOGETHER: Duration = Duration::from_secs(1);

/// When messages last came, or could have.
#[derive(Debug)]
pub struct Consuming {
    since: Instant,
    /// Milliseconds after `since`; 0 while nothing can come.
    shown: AtomicU64,
    deliveries: AtomicU64,
    in_hand: AtomicU64,
    /// When messages were refused, and how many; those of the last minute.
    refused: Mutex<VecDeque<(Instant, u64)>>,
    /// Why nothing can come, as it was last known.
    why_not: Cause,
}

impl Default for Consuming {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            since: Instant::now(),
            shown: zero(),
            deliveries: zero(),
            in_hand: zero(),
            refused: Mutex::default(),
            why_not: Cause::default(),
        }
    }
}

impl Consuming {
    /// Whether a message has come, or was shown to be able to, within the last seconds.
    pub fn is_fresh(&self) -> bool {
        let shown = self.shown.load(Ordering::Relaxed);
        shown > 0 && self.since.elapsed().saturating_sub(Duration::from_millis(shown)) < FRESH
    }

    /// Why no message can come, in words for an operator; `None` while they can, or while that is not known yet.
    pub fn problem(&self) -> Option<String> {
        if self.is_fresh() { None } else { self.why_not.get() }
    }

    pub(super) fn cannot(&self, why: Option<String>) {
        self.why_not.set(why);
    }

    /// The broker has answered on the line.
    pub fn shown(&self) {
        self.shown.store(self.now(), Ordering::Relaxed);
    }

    /// A message was refused. It counts as waiting until the broker has carried it on.
    pub(super) fn refused(&self) {
        let now = Instant::now();
        let mut refused = self.refused_until(now);
        match refused.back_mut().filter(|(since, _)| now.saturating_duration_since(*since) < TOGETHER) {
            Some((_, count)) => *count += 1,
            None => refused.push_back((now, 1)),
        }
    }

    /// How many of the messages that wait are perhaps such ones.
    fn refused_lately(&self) -> u64 {
        self.refused_until(Instant::now()).iter().map(|(_, count)| count).sum()
    }

    fn refused_until(&self, now: Instant) -> MutexGuard<'_, VecDeque<(Instant, u64)>> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        while refused.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= CARRIED_ON) {
            refused.pop_front();
        }
        refused
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// A message has come.
    pub fn delivered(&self) {
        self.deliveries.fetch_add(1, Ordering::Relaxed);
        self.shown();
    }

    pub fn lost(&self) {
        self.shown.store(0, Ordering::Relaxed);
    }

    pub fn begin(&self) {
        self.in_hand.fetch_add(1, Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.in_hand.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks the broker now and then about the queue, on a channel of its own, until the line must be taken for dead: no
/// answer, no queue, no consumer, or messages that wait while none is in hand and none comes.
/// Those are counted by the question, and `idle_at_most` of them in a row are borne; more while the broker is busy with
/// what was refused.
pub async fn watch(
    connection: &Connection,
    queue: &str,
    consuming: &Consuming,
    idle_at_most: u32,
) -> Unusable {
    let mut idle = 0;
    let mut before = consuming.deliveries.load(Ordering::Relaxed);
    let channel = match tokio::time::timeout(PATIENCE, connection.create_channel()).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return error.into(),
        Err(_) => return Unusable::lost("the broker does not answer"),
    };
    loop {
        tokio::time::sleep(EVERY).await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asking = channel.queue_declare(queue.into(), passive, FieldTable::default());
        let answer = match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Unusable::Away(error),
            Err(_) => return Unusable::lost("the broker does not answer"),
        };
        let deliveries = consuming.deliveries.load(Ordering::Relaxed);
        let nothing_in_hand = consuming.in_hand.load(Ordering::Relaxed) == 0;
        let others = u64::from(answer.message_count()).saturating_sub(consuming.refused_lately());
        let waits = others > 0 && deliveries == before && nothing_in_hand;
        before = deliveries;
        idle = if waits || answer.consumer_count() == 0 { idle + 1 } else { 0 };
        let is_busy = consuming.refused_lately() > 0;
        if idle >= if is_busy { idle_at_most.max(IDLE_WHILE_BUSY) } else { idle_at_most } {
            return Unusable::lost("messages wait in the queue, and none comes");
        }
        if idle == 0 {
            consuming.shown();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_lost_is_not_fresh_until_it_shows_itself_again() {
        let consuming = Consuming::default();
        assert!(!consuming.is_fresh());
        consuming.delivered();
        assert!(consuming.is_fresh());
        consuming.lost();
        assert!(!consuming.is_fresh());
        consuming.shown();
        assert!(consuming.is_fresh());
    }

    #[test]
    fn so_many_as_were_refused_within_a_minute_may_still_be_in_the_queue() {
        let consuming = Consuming::default();
        for _ in 0..5 {
            consuming.refused();
        }
        assert_eq!(consuming.refused_lately(), 5);
        drop(consuming.refused_until(Instant::now() + CARRIED_ON));
        assert_eq!(consuming.refused_lately(), 0);
    }
}
