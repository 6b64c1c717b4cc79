//! Whether a consumer still consumes: an open connection does not prove that.

use super::{
    backlog::{Backlog, QueueLook},
    cause::Cause,
    connection::{BrokerError, is_queue_down},
    nodes,
};
use lapin::{Connection, options::QueueDeclareOptions, types::FieldTable};
use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

/// How often the queue's state is read.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// How long the broker may take to answer before the connection counts as dead.
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);
/// How old the last sign of life may be: one interval, one answer, and some more.
const FRESH_FOR: Duration = Duration::from_secs(9);
/// How long the broker may take to carry a rejected message on.
const CARRIED_ON_WITHIN: Duration = Duration::from_mins(1);
/// Checks in a row that may find messages waiting while the broker is busy with rejected ones: headers that are nested
/// 26,000 deep take RabbitMQ many seconds.
const MAX_IDLE_CHECKS_WHILE_BUSY: u32 = 15;
/// How long a message may take from the queue to the worker.
const UNDER_WAY_AT_MOST: Duration = Duration::from_secs(1);
/// Messages that are rejected within this time are counted together.
const COUNTED_TOGETHER: Duration = Duration::from_secs(1);

/// Whether messages are delivered, or would be if there were any.
#[derive(Debug)]
pub(crate) struct ConsumerHealth {
    start: Instant,
    /// The last sign of life, in milliseconds after `start`; 0 while no message can be delivered.
    alive_at: AtomicU64,
    deliveries: AtomicU64,
    in_flight: AtomicU64,
    /// When no message waited in the queue, in milliseconds after `start`; 0 for never.
    empty_at: AtomicU64,
    /// The timestamp of the newest message that was delivered for the first time, in seconds since 1970; 0 for none.
    newest_timestamp: AtomicU64,
    /// When messages were rejected in the last minute, and how many.
    rejected: Mutex<VecDeque<(Instant, u64)>>,
    /// The last known reason why no message can be delivered.
    cause: Cause,
    backlog: Backlog,
}

impl Default for ConsumerHealth {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            start: Instant::now(),
            alive_at: zero(),
            deliveries: zero(),
            in_flight: zero(),
            empty_at: zero(),
            newest_timestamp: zero(),
            rejected: Mutex::default(),
            cause: Cause::default(),
            backlog: Backlog::default(),
        }
    }
}

impl ConsumerHealth {
    /// Whether a message was delivered within the last seconds, or could have been.
    pub(crate) fn is_receiving(&self) -> bool {
        let alive_at = self.alive_at.load(Ordering::Relaxed);
        alive_at > 0 && self.start.elapsed().saturating_sub(Duration::from_millis(alive_at)) < FRESH_FOR
    }

    /// Why no message can be delivered, for an operator; `None` while they can, or while that is not known yet.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.is_receiving() { None } else { self.cause.get() }
    }

    pub(super) fn set_problem(&self, why: Option<String>) {
        self.cause.set(why);
    }

    /// The broker has answered on the connection.
    pub(super) fn set_alive(&self) {
        self.alive_at.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn set_lost(&self) {
        self.alive_at.store(0, Ordering::Relaxed);
    }

    /// A message was delivered.
    pub(super) fn delivered(&self) {
        self.deliveries.fetch_add(1, Ordering::Relaxed);
        self.set_alive();
    }

    /// A message was rejected. It may still be in the queue until the broker has carried it on.
    pub(super) fn rejected(&self) {
        let now = Instant::now();
        let mut rejected = self.recent_rejections(now);
        match rejected
            .back_mut()
            .filter(|(since, _)| now.saturating_duration_since(*since) < COUNTED_TOGETHER)
        {
            Some((_, count)) => *count += 1,
            None => rejected.push_back((now, 1)),
        }
    }

    /// How many of the waiting messages may be rejected ones.
    fn rejected_lately(&self) -> u64 {
        self.recent_rejections(Instant::now()).iter().map(|(_, count)| count).sum()
    }

    fn recent_rejections(&self, now: Instant) -> MutexGuard<'_, VecDeque<(Instant, u64)>> {
        let mut rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        while rejected.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= CARRIED_ON_WITHIN)
        {
            rejected.pop_front();
        }
        rejected
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// The last moment at which no message waited in the queue, for a message that is delivered now, and for the first time:
    /// it was published later. `None` if that is not sure.
    pub(super) fn empty_before(&self) -> Option<Instant> {
        let millis = self.empty_at.load(Ordering::Relaxed);
        let at = self.start + Duration::from_millis(millis);
        (millis > 0 && at.elapsed() > UNDER_WAY_AT_MOST).then_some(at)
    }

    /// A message was delivered for the first time, with this timestamp in seconds.
    pub(super) fn delivered_of(&self, timestamp: u64) {
        self.newest_timestamp.store(timestamp, Ordering::Relaxed);
    }

    /// How old the oldest of these messages in the queue is at most. If neither the queue was empty nor a message had a
    /// timestamp, it counts from this process's start.
    pub(super) fn oldest_message(&self, messages: u32) -> Duration {
        if messages == 0 {
            return Duration::ZERO;
        }
        let empty_at = Duration::from_millis(self.empty_at.load(Ordering::Relaxed));
        let since_empty = self.start.elapsed().saturating_sub(empty_at);
        let timestamp =
            Some(self.newest_timestamp.load(Ordering::Relaxed)).filter(|timestamp| *timestamp > 0);
        let by_timestamp = timestamp.map(|timestamp| {
            let newest = UNIX_EPOCH.checked_add(Duration::from_secs(timestamp));
            newest.and_then(|newest| newest.elapsed().ok()).unwrap_or_default()
        });
        match by_timestamp {
            // A message that was delivered may be older than the moment at which the queue was empty.
            Some(age) if empty_at.is_zero() => age,
            Some(age) => age.min(since_empty),
            None => since_empty,
        }
    }

    /// What to say of a queue whose messages wait long.
    pub(crate) fn backlog_problem(&self) -> Option<String> {
        self.backlog.problem(self.in_flight())
    }

    /// How many invites the worker is processing now.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The worker has begun to process an invite.
    pub(super) fn started(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn finished(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads the queue's state every two seconds, on a channel of its own, until the connection must be dead: the broker does
/// not answer, the queue or its consumer is missing, or messages wait although none is delivered and none is in flight.
/// A missing consumer and waiting messages are allowed for fewer than `max_idle_checks` checks in a row; for more while the
/// broker is busy with rejected messages.
pub(super) async fn watch(
    connection: &Connection,
    node: &str,
    queue: &str,
    health: &ConsumerHealth,
    max_idle_checks: u32,
) -> BrokerError {
    let silent = |why: &str| {
        nodes::silent(node, why);
        BrokerError::lost(&format!("{node}: {why}"))
    };
    let mut idle_checks = 0;
    let mut before = health.deliveries.load(Ordering::Relaxed);
    let channel = match tokio::time::timeout(ANSWERS_WITHIN, connection.create_channel()).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return error.into(),
        Err(_) => return silent("it does not answer"),
    };
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let asked_at = health.now();
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declaring = channel.queue_declare(queue.into(), passive, FieldTable::default());
        let state = match tokio::time::timeout(ANSWERS_WITHIN, declaring).await {
            Ok(Ok(state)) => state,
            Ok(Err(error)) if is_queue_down(&error) => return BrokerError::QueueDown(error),
            Ok(Err(error)) => return BrokerError::Unavailable(error),
            Err(_) => return silent("it does not answer"),
        };
        if state.message_count() == 0 {
            health.empty_at.store(asked_at, Ordering::Relaxed);
        }
        let deliveries = health.deliveries.load(Ordering::Relaxed);
        let none_in_flight = health.in_flight.load(Ordering::Relaxed) == 0;
        let rejected = health.rejected_lately();
        let waiting = u64::from(state.message_count()).saturating_sub(rejected);
        health.backlog.note(QueueLook { at: Instant::now(), waiting, deliveries });
        let is_idle = waiting > 0 && deliveries == before && none_in_flight;
        before = deliveries;
        idle_checks = if is_idle || state.consumer_count() == 0 { idle_checks + 1 } else { 0 };
        let max =
            if rejected > 0 { max_idle_checks.max(MAX_IDLE_CHECKS_WHILE_BUSY) } else { max_idle_checks };
        if idle_checks >= max {
            return silent("messages wait in the queue, and none is delivered");
        }
        if idle_checks == 0 {
            health.set_alive();
            nodes::works(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_whose_connection_is_lost_receives_nothing_until_the_broker_answers_again() {
        let health = ConsumerHealth::default();
        assert!(!health.is_receiving());
        health.delivered();
        assert!(health.is_receiving());
        health.set_lost();
        assert!(!health.is_receiving());
        health.set_alive();
        assert!(health.is_receiving());
    }

    #[test]
    fn no_message_is_older_than_the_newest_delivery_or_the_last_moment_without_messages() {
        let seconds_ago =
            |seconds| UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs().saturating_sub(seconds);
        let health = ConsumerHealth::default();
        assert_eq!(health.oldest_message(0), Duration::ZERO);
        assert!(health.oldest_message(5) < Duration::from_secs(20), "not before this process");
        health.delivered_of(seconds_ago(60));
        let age = health.oldest_message(5).as_secs();
        assert!((60..80).contains(&age), "{age}");
        health.empty_at.store(1, Ordering::Relaxed);
        assert!(health.oldest_message(5) < Duration::from_secs(20), "the queue was empty a moment ago");
        assert_eq!(health.oldest_message(0), Duration::ZERO);
    }

    #[test]
    fn messages_that_were_rejected_within_a_minute_may_still_be_in_the_queue() {
        let health = ConsumerHealth::default();
        for _ in 0..5 {
            health.rejected();
        }
        assert_eq!(health.rejected_lately(), 5);
        drop(health.recent_rejections(Instant::now() + CARRIED_ON_WITHIN));
        assert_eq!(health.rejected_lately(), 0);
    }
}
