//! The texts of one From number, one after the other, as fast as the provider takes them (`SMS_PER_SECOND`). An invite that
//! comes too early waits, and is not refused. Slots are points in time that are reserved in Postgres, so that workers share
//! a From number. A worker reserves a quarter of a second at most, so that few slots are lost when it ends.

use super::{buckets, share::WaitingGuard};
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

/// Seconds that one statement reserves at most.
const AHEAD: f64 = 0.25;
/// A reserved slot that is older than this is lost.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// The From numbers of this worker.
#[derive(Debug)]
pub(super) struct Paces {
    pool: PgPool,
    apart: Duration,
    /// The most slots that one statement reserves.
    max_slots: u32,
    stop: CancellationToken,
    give_up: CancellationToken,
    paces: Mutex<HashMap<String, Arc<Pace>>>,
}

#[derive(Debug)]
struct Pace {
    /// The name of its bucket.
    name: String,
    waiting: AtomicU32,
    /// The task that has the lock gets the next slot.
    reservation: tokio::sync::Mutex<Reservation>,
    /// Slots whose time has come and that were dropped unused.
    spare: Semaphore,
}

#[derive(Debug)]
struct Reservation {
    next: Instant,
    left: u32,
}

/// The moment to hand one text over. Dropped unused, it passes to the next task that waits.
#[derive(Debug)]
pub struct Slot(Option<Arc<Pace>>);

impl Slot {
    /// The slot of a worker without `SMS_PER_SECOND`.
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
        let max_slots = ((per_second * AHEAD) as u32).max(1);
        Self { pool, apart, max_slots, stop, give_up, paces: Mutex::default() }
    }

    /// Waits for the From number's next slot. `None` if that takes longer than `patience`.
    pub(super) async fn slot(
        &self,
        from_number: &str,
        patience: Option<Duration>,
    ) -> Result<Option<Slot>, Trouble> {
        let pace = self.pace(from_number);
        let timeout = async {
            match patience {
                Some(patience) => sleep(patience).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Trouble::Stopping),
            slot = self.wait(&pace) => slot.map(Some),
            () = timeout => Ok(None),
        }
    }

    /// Dropped before its end, this loses only what a running statement reserves.
    async fn wait(&self, pace: &Arc<Pace>) -> Result<Slot, Trouble> {
        let _waiting = WaitingGuard::new(&pace.waiting);
        let mut reservation = pace.reservation.lock().await;
        if reservation.left > 0 && reservation.next.elapsed() > LOST_AFTER {
            reservation.left = 0;
        }
        if reservation.left == 0 {
            let slots = pace.waiting.load(Ordering::Relaxed).clamp(1, self.max_slots);
            let reserve = || buckets::reserve(&self.pool, &pace.name, self.apart, slots);
            let starts_in = persist(&kinds::RESERVE_TIME, &self.give_up, reserve).await?;
            *reservation = Reservation { next: Instant::now() + starts_in, left: slots };
        }
        tokio::select! {
            biased;
            spare = pace.spare.acquire() => {
                if let Ok(spare) = spare {
                    spare.forget();
                }
            }
            () = sleep_until(reservation.next.into()) => {
                reservation.left -= 1;
                reservation.next += self.apart;
            }
        }
        Ok(Slot(Some(pace.clone())))
    }

    fn pace(&self, from_number: &str) -> Arc<Pace> {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = paces.get(from_number) {
            return pace.clone();
        }
        let pace = Arc::new(Pace {
            name: format!("sender/{from_number}"),
            waiting: AtomicU32::new(0),
            reservation: tokio::sync::Mutex::const_new(Reservation { next: Instant::now(), left: 0 }),
            spare: Semaphore::const_new(0),
        });
        paces.insert(from_number.to_owned(), pace.clone());
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
    async fn two_workers_together_keep_the_pace_and_one_slow_number_delays_no_other() {
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
    async fn an_unused_slot_passes_to_the_next_task() {
        with_database(|pool| async move {
            let worker = paces(&pool, 0.01);
            let first = worker.slot("a", None).await.unwrap().unwrap();
            let (next, ()) = tokio::join!(worker.slot("a", Some(Duration::from_secs(5))), async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                drop(first);
            });
            let next = next.unwrap().expect("the slot that was dropped");
            // No task waits: the slot is lost, and not saved.
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
