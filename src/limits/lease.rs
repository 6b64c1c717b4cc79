//! A worker's share of a bucket: it takes what is asked for at the moment and a little more in one statement, and remembers
//! until when the bucket is empty, so that a flood that is refused costs no statement each.

use super::buckets::{self, Size};
use crate::{
    db::{Passing, kinds, persist},
    trouble::Trouble,
};
use sqlx::PgPool;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// What is taken ahead of being asked for: what the bucket fills with in so many seconds, rounded down.
const AHEAD: f64 = 0.1;
/// What is leased and not used for so long goes back.
const UNUSED_AFTER: Duration = Duration::from_secs(1);
/// A bucket that nobody asked for in that time is forgotten here.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(10);

/// The buckets that this worker takes from.
#[derive(Debug)]
pub(super) struct Leases {
    pool: PgPool,
    stop: CancellationToken,
    buckets: Mutex<HashMap<String, Arc<Bucket>>>,
}

#[derive(Debug)]
struct Bucket {
    name: String,
    /// Invites that wait for the next statement.
    waiting: AtomicU32,
    /// Held through a statement, so that there is one at a time.
    asking: tokio::sync::Mutex<()>,
    lease: Mutex<Lease>,
}

#[derive(Debug)]
struct Lease {
    size: Size,
    held: u32,
    empty_until: Option<Instant>,
    asked: Instant,
}

/// One, taken from a bucket. It goes back when it is dropped, unless it is used.
#[derive(Debug)]
pub struct Permit {
    bucket: Arc<Bucket>,
    spent: bool,
}

impl Permit {
    pub fn used(mut self) {
        self.spent = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.spent {
            self.bucket.lease().held += 1;
        }
    }
}

/// Counts one who waits, until it is dropped.
pub(super) struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    pub(super) fn count(of: &'a AtomicU32) -> Self {
        of.fetch_add(1, Ordering::Relaxed);
        Self(of)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Leases {
    pub(super) fn new(pool: PgPool, stop: CancellationToken) -> Self {
        Self { pool, stop, buckets: Mutex::default() }
    }

    /// One from this bucket, or after which time it is worth asking again.
    pub(super) async fn take(&self, name: &str, size: Size) -> Result<Result<Permit, Duration>, Trouble> {
        let bucket = self.bucket(name, size);
        if let Some(known) = bucket.at_hand() {
            return Ok(known);
        }
        let _waiting = Waiting::count(&bucket.waiting);
        let _asking = bucket.asking.lock().await;
        // Whoever asked meanwhile may have taken for this one too.
        if let Some(known) = bucket.at_hand() {
            return Ok(known);
        }
        let wanted = ahead(size).max(bucket.waiting.load(Ordering::Relaxed)).max(1);
        let take = || buckets::take(&self.pool, name, size, wanted);
        let granted = persist(&kinds::TAKE_FROM_BUCKET, &self.stop, take).await?;
        {
            let mut lease = bucket.lease();
            lease.held += granted.count;
            // All that there was: those who come next need not ask.
            lease.empty_until = (granted.count < wanted).then(|| Instant::now() + granted.next);
        }
        Ok(bucket.at_hand().unwrap_or(Err(granted.next)))
    }

    /// What nobody used goes back, for other workers. What cannot be given back now is lost: a limit errs on the side of less.
    pub(super) async fn give_back_unused(&self) {
        let all: Vec<_> = self.buckets().values().cloned().collect();
        for bucket in all {
            let (size, unused) = bucket.unused();
            if unused == 0 {
                continue;
            }
            let given = buckets::give_back(&self.pool, &bucket.name, size, unused).await;
            kinds::GIVE_BACK_TO_BUCKET.note(&given);
            if let Err(error) = given {
                tracing::debug!(error = %error.summary(), "what was leased is not given back");
            }
        }
        self.buckets().retain(|_, bucket| {
            Arc::strong_count(bucket) > 1 || bucket.lease().asked.elapsed() < FORGOTTEN_AFTER
        });
    }

    fn bucket(&self, name: &str, size: Size) -> Arc<Bucket> {
        let mut buckets = self.buckets();
        let known = buckets.get(name).cloned();
        let bucket = known.unwrap_or_else(|| {
            let new = Arc::new(Bucket::new(name, size));
            buckets.insert(name.to_owned(), new.clone());
            new
        });
        bucket.is_of(size);
        bucket
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<String, Arc<Bucket>>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn new(name: &str, size: Size) -> Self {
        Self {
            name: name.to_owned(),
            waiting: AtomicU32::new(0),
            asking: tokio::sync::Mutex::const_new(()),
            lease: Mutex::new(Lease { size, held: 0, empty_until: None, asked: Instant::now() }),
        }
    }

    /// A limit that was changed counts from now on.
    fn is_of(&self, size: Size) {
        let mut lease = self.lease();
        if lease.size != size {
            *lease = Lease { size, held: 0, empty_until: None, asked: Instant::now() };
        }
    }

    /// What can be said without a statement.
    fn at_hand(self: &Arc<Self>) -> Option<Result<Permit, Duration>> {
        let mut lease = self.lease();
        lease.asked = Instant::now();
        if lease.held > 0 {
            lease.held -= 1;
            return Some(Ok(Permit { bucket: self.clone(), spent: false }));
        }
        let left = lease.empty_until?.checked_duration_since(lease.asked)?;
        Some(Err(left))
    }

    /// What is held and was not asked for lately: it is not held any more.
    fn unused(&self) -> (Size, u32) {
        let mut lease = self.lease();
        let idle = lease.asked.elapsed() >= UNUSED_AFTER;
        (lease.size, if idle { std::mem::take(&mut lease.held) } else { 0 })
    }

    fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ahead(size: Size) -> u32 {
    let a_second = f64::from(size.holds) / size.fills_in.as_secs_f64().max(1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 100,000")]
    let ahead = (a_second * AHEAD) as u32;
    ahead
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::with_database;

    const TEN: Size = Size { holds: 10, fills_in: Duration::from_mins(1) };

    fn leases(pool: &PgPool) -> Leases {
        Leases::new(pool.clone(), CancellationToken::new())
    }

    #[tokio::test]
    async fn two_workers_share_a_bucket_and_a_refused_flood_asks_nobody() {
        with_database(|pool| async move {
            let workers = [leases(&pool), leases(&pool)];
            let mut permits = Vec::new();
            for n in 0..10 {
                permits.push(workers[n % 2].take("a", TEN).await.unwrap().unwrap());
            }
            for worker in &workers {
                let after = worker.take("a", TEN).await.unwrap().unwrap_err();
                assert!((5.0..=6.0).contains(&after.as_secs_f64()), "one in six seconds: {after:?}");
            }
            // Without the table nobody could ask it.
            sqlx::raw_sql("alter table rate_buckets rename to gone").execute(&pool).await.unwrap();
            for _ in 0..100 {
                assert!(workers[0].take("a", TEN).await.unwrap().is_err());
            }
            // What was not used is there for the next.
            drop(permits.swap_remove(0));
            workers[0].take("a", TEN).await.unwrap().unwrap().used();
            assert!(workers[0].take("a", TEN).await.unwrap().is_err());
            permits.into_iter().for_each(Permit::used);
        })
        .await;
    }

    #[tokio::test]
    async fn many_at_once_take_in_few_statements_and_no_more_than_there_is() {
        with_database(|pool| async move {
            let size = Size { holds: 100, fills_in: Duration::from_hours(1) };
            let worker = leases(&pool);
            let asked = (0..300).map(|_| worker.take("b", size));
            let answers = futures::future::join_all(asked).await;
            let got = answers.into_iter().filter_map(|answer| answer.unwrap().ok()).map(Permit::used).count();
            assert_eq!(got, 100);
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_not_used_goes_back_to_the_others() {
        with_database(|pool| async move {
            let workers = [leases(&pool), leases(&pool)];
            let permits: Vec<_> = futures::future::join_all((0..10).map(|_| workers[0].take("c", TEN))).await;
            drop(permits);
            assert!(workers[1].take("c", TEN).await.unwrap().is_err());
            for bucket in workers[0].buckets().values() {
                bucket.lease().asked -= UNUSED_AFTER;
            }
            workers[0].give_back_unused().await;
            let fresh = leases(&pool);
            for _ in 0..10 {
                fresh.take("c", TEN).await.unwrap().unwrap().used();
            }
            assert!(fresh.take("c", TEN).await.unwrap().is_err());
            // A limit that is changed counts at once: with twice as many, the next is there in half the time.
            let more = fresh.take("c", Size { holds: 20, ..TEN }).await.unwrap().unwrap_err();
            assert!(more <= Duration::from_secs(3), "{more:?}");
        })
        .await;
    }
}
