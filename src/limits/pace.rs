//! A sender's texts, one after the other, as fast as the provider takes them (`SMS_PER_SECOND`). Whoever comes too early
//! waits, and is not refused. Points in time are reserved in Postgres, so that workers share a sender; each reserves for a
//! quarter of a second at most, so that little is lost with one that ends.

use super::{buckets, lease::Waiting};
use crate::{
    db::{kinds, persist},
    trouble::Trouble,
};
use sqlx::PgPool;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::Semaphore,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Seconds for which one worker reserves at a time.
const AHEAD: f64 = 0.25;
/// What was reserved for longer ago than this is over.
const OVER_AFTER: Duration = Duration::from_secs(1);

/// The senders that this worker texts from.
#[derive(Debug)]
pub(super) struct Paces {
    pool: PgPool,
    apart: Duration,
    /// Slots in one statement at most.
    at_most: u32,
    stop: CancellationToken,
    give_up: CancellationToken,
    senders: Mutex<HashMap<String, Arc<Pace>>>,
}

#[derive(Debug)]
struct Pace {
    name: String,
    waiting: AtomicU32,
    /// Whoever has it is next.
    turn: tokio::sync::Mutex<Reserved>,
    /// Slots whose time has come and that were not needed.
    spare: Semaphore,
}

#[derive(Debug)]
struct Reserved {
    next: Instant,
    left: u32,
}

/// The time to hand one text over. When it is dropped without one, the next who waits has it.
#[derive(Debug)]
pub struct Slot(Option<Arc<Pace>>);

impl Slot {
    /// Where no pace is set.
    pub const fn unbounded() -> Self {
        Self(None)
    }

    pub fn used(mut self) {
        self.0 = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(pace) = &self.0
            && pace.waiting.load(Ordering::Relaxed) > 0
        {
            pace.spare.add_permits(1);
        }
    }
}

impl Paces {
    pub(super) fn new(
        pool: PgPool,
        per_second: f64,
        stop: CancellationToken,
        give_up: CancellationToken,
    ) -> Self {
        let apart = Duration::from_secs_f64(1.0 / per_second);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a quarter of 10,000 at most"
        )]
        let at_most = ((per_second * AHEAD) as u32).max(1);
        Self { pool, apart, at_most, stop, give_up, senders: Mutex::default() }
    }

    /// Waits for this sender's turn; `None` when `patience` is over before that.
    pub(super) async fn slot(
        &self,
        sender: &str,
        patience: Option<Duration>,
    ) -> Result<Option<Slot>, Trouble> {
        let pace = self.pace(sender);
        let over = async {
            match patience {
                Some(patience) => sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Trouble::Stopping),
            slot = self.wait(&pace) => slot.map(Some),
            () = over => Ok(None),
        }
    }

    /// Nothing is lost when this is dropped in the middle, but for what a statement under way reserves.
    async fn wait(&self, pace: &Arc<Pace>) -> Result<Slot, Trouble> {
        let _waiting = Waiting::count(&pace.waiting);
        let mut turn = pace.turn.lock().await;
        if turn.left > 0 && turn.next.elapsed() > OVER_AFTER {
            turn.left = 0;
        }
        if turn.left == 0 {
            let slots = pace.waiting.load(Ordering::Relaxed).clamp(1, self.at_most);
            let reserve = || buckets::reserve(&self.pool, &pace.name, self.apart, slots);
            let starts_in = persist(&kinds::RESERVE_TIME, &self.give_up, reserve).await?;
            *turn = Reserved { next: Instant::now() + starts_in, left: slots };
        }
        tokio::select! {
            biased;
            spare = pace.spare.acquire() => {
                if let Ok(spare) = spare {
                    spare.forget();
                }
            }
            () = sleep_until(turn.next.into()) => {
                turn.left -= 1;
                turn.next += self.apart;
            }
        }
        Ok(Slot(Some(pace.clone())))
    }

    fn pace(&self, sender: &str) -> Arc<Pace> {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = senders.get(sender) {
            return pace.clone();
        }
        let pace = Arc::new(Pace {
            name: format!("sender/{sender}"),
            waiting: AtomicU32::new(0),
            turn: tokio::sync::Mutex::const_new(Reserved { next: Instant::now(), left: 0 }),
            spare: Semaphore::const_new(0),
        });
        senders.insert(sender.to_owned(), pace.clone());
        pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::with_database;

    fn paces(pool: &PgPool, per_second: f64) -> Paces {
        Paces::new(pool.clone(), per_second, CancellationToken::new(), CancellationToken::new())
    }

    #[tokio::test]
    async fn two_workers_together_keep_the_pace_and_one_slow_sender_holds_up_no_other() {
        with_database(|pool| async move {
            let workers = [paces(&pool, 50.0), paces(&pool, 50.0)];
            let begun = Instant::now();
            let asked = (0..40).map(|n| {
                let worker = &workers[n % 2];
                async move { worker.slot("+15005550006", None).await.unwrap().unwrap().used() }
            });
            futures::future::join_all(asked).await;
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(39 * 20 - 5), "{took:?}");
            let slow = paces(&pool, 0.01);
            slow.slot("a", None).await.unwrap().unwrap().used();
            let no_more = slow.slot("a", Some(Duration::from_millis(50))).await.unwrap();
            assert!(no_more.is_none());
            slow.slot("b", Some(Duration::from_secs(5))).await.unwrap().unwrap().used();
        })
        .await;
    }

    #[tokio::test]
    async fn a_slot_that_is_not_needed_is_the_next_ones() {
        with_database(|pool| async move {
            let worker = paces(&pool, 0.01);
            let first = worker.slot("a", None).await.unwrap().unwrap();
            let (next, ()) = tokio::join!(worker.slot("a", Some(Duration::from_secs(5))), async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                drop(first);
            });
            let next = next.unwrap().expect("it has the first one's");
            // Nobody waits: it is lost, and not saved up.
            drop(next);
            assert!(worker.slot("a", Some(Duration::from_millis(50))).await.unwrap().is_none());
        })
        .await;
    }

    #[tokio::test]
    async fn a_stop_ends_the_waiting() {
        with_database(|pool| async move {
            let stop = CancellationToken::new();
            let worker = Paces::new(pool, 0.01, stop.clone(), CancellationToken::new());
            worker.slot("a", None).await.unwrap().unwrap().used();
            let (waited, ()) = tokio::join!(worker.slot("a", None), async { stop.cancel() });
            assert!(matches!(waited, Err(Trouble::Stopping)));
        })
        .await;
    }
}
