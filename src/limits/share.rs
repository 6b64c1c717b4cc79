//! A worker's share of each bucket. One statement takes tokens for all invites that wait, and a few ahead. The worker
//! remembers until when a bucket is empty, so that refused invites cost no statements.

use super::buckets::{self, BucketSize};
use crate::{
    db::{StatementError, kinds, persist},
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

/// Seconds. A worker takes as many tokens ahead as the bucket gains in this time, rounded down.
const AHEAD: f64 = 0.1;
/// Tokens that were not used for this time go back.
const UNUSED_AFTER: Duration = Duration::from_secs(1);
/// A bucket that was not used for this time is dropped from memory.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(10);

/// This worker's shares, by the name of the bucket.
#[derive(Debug)]
pub(super) struct Shares {
    pool: PgPool,
    stop: CancellationToken,
    buckets: Mutex<HashMap<String, Arc<SharedBucket>>>,
}

#[derive(Debug)]
struct SharedBucket {
    name: String,
    /// Invites that wait for the next statement.
    waiting: AtomicU32,
    /// Locked during a statement, so that only one runs at a time.
    statement: tokio::sync::Mutex<()>,
    share: Mutex<BucketShare>,
}

#[derive(Debug)]
struct BucketShare {
    size: BucketSize,
    /// Tokens that were taken from the bucket and not used yet.
    tokens: u32,
    empty_until: Option<Instant>,
    used_at: Instant,
}

/// The bucket is empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct BucketEmpty {
    /// Until there is one more token.
    pub next_in: Duration,
}

/// One token of a bucket. Dropped unused, it goes back to the share.
#[derive(Debug)]
pub(crate) struct Permit {
    bucket: Arc<SharedBucket>,
    spent: bool,
}

impl Permit {
    pub(crate) fn used(mut self) {
        self.spent = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.spent {
            self.bucket.share().tokens += 1;
        }
    }
}

/// Counts a task that waits, until it is dropped.
pub(super) struct WaitingGuard<'a>(&'a AtomicU32);

impl<'a> WaitingGuard<'a> {
    pub(super) fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shares {
    pub(super) fn new(pool: PgPool, stop: CancellationToken) -> Self {
        Self { pool, stop, buckets: Mutex::default() }
    }

    /// Takes one token from this bucket.
    pub(super) async fn take(
        &self,
        name: &str,
        size: BucketSize,
    ) -> Result<Result<Permit, BucketEmpty>, Trouble> {
        let bucket = self.bucket(name, size);
        if let Some(result) = bucket.take_locally() {
            return Ok(result);
        }
        let _waiting = WaitingGuard::new(&bucket.waiting);
        let _statement = bucket.statement.lock().await;
        // The statement before may have taken a token for this invite too.
        if let Some(result) = bucket.take_locally() {
            return Ok(result);
        }
        let wanted = ahead(size).max(bucket.waiting.load(Ordering::Relaxed)).max(1);
        let take = || buckets::take(&self.pool, name, size, wanted);
        let grant = persist(&kinds::TAKE_FROM_BUCKET, &self.stop, take).await?;
        {
            let mut share = bucket.share();
            share.tokens += grant.count;
            // Fewer than wanted: the bucket is empty, and the next invites need no statement.
            share.empty_until = (grant.count < wanted).then(|| Instant::now() + grant.next_in);
        }
        Ok(bucket.take_locally().unwrap_or(Err(BucketEmpty { next_in: grant.next_in })))
    }

    /// Gives unused tokens back, for other workers. Tokens that cannot be given back now are lost: a limit may refuse too
    /// much, and never admit too much.
    pub(super) async fn give_back_unused(&self) {
        let all: Vec<_> = self.buckets().values().cloned().collect();
        for bucket in all {
            let (size, unused) = bucket.take_unused();
            if unused == 0 {
                continue;
            }
            let given = buckets::give_back(&self.pool, &bucket.name, size, unused).await;
            kinds::GIVE_BACK_TO_BUCKET.note(&given);
            if let Err(error) = given {
                tracing::debug!(error = %error.summary(), "unused tokens are not given back");
            }
        }
        self.buckets().retain(|_, bucket| {
            Arc::strong_count(bucket) > 1 || bucket.share().used_at.elapsed() < FORGOTTEN_AFTER
        });
    }

    fn bucket(&self, name: &str, size: BucketSize) -> Arc<SharedBucket> {
        let mut buckets = self.buckets();
        let known = buckets.get(name).cloned();
        let bucket = known.unwrap_or_else(|| {
            let new = Arc::new(SharedBucket::new(name, size));
            buckets.insert(name.to_owned(), new.clone());
            new
        });
        bucket.set_size(size);
        bucket
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<String, Arc<SharedBucket>>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BucketShare {
    fn new(size: BucketSize) -> Self {
        Self { size, tokens: 0, empty_until: None, used_at: Instant::now() }
    }
}

impl SharedBucket {
    fn new(name: &str, size: BucketSize) -> Self {
        Self {
            name: name.to_owned(),
            waiting: AtomicU32::new(0),
            statement: tokio::sync::Mutex::const_new(()),
            share: Mutex::new(BucketShare::new(size)),
        }
    }

    /// A changed limit begins with an empty share.
    fn set_size(&self, size: BucketSize) {
        let mut share = self.share();
        if share.size != size {
            *share = BucketShare::new(size);
        }
    }

    /// Takes a token from the share, without a statement. `None` if only the database knows whether there is one.
    fn take_locally(self: &Arc<Self>) -> Option<Result<Permit, BucketEmpty>> {
        let mut share = self.share();
        share.used_at = Instant::now();
        if share.tokens > 0 {
            share.tokens -= 1;
            return Some(Ok(Permit { bucket: self.clone(), spent: false }));
        }
        let next_in = share.empty_until?.checked_duration_since(share.used_at)?;
        Some(Err(BucketEmpty { next_in }))
    }

    /// Takes the tokens out of a share that was not used lately.
    fn take_unused(&self) -> (BucketSize, u32) {
        let mut share = self.share();
        let is_idle = share.used_at.elapsed() >= UNUSED_AFTER;
        (share.size, if is_idle { std::mem::take(&mut share.tokens) } else { 0 })
    }

    fn share(&self) -> MutexGuard<'_, BucketShare> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ahead(size: BucketSize) -> u32 {
    let per_second = f64::from(size.holds) / size.fills_in.as_secs_f64().max(1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 100,000")]
    let ahead = (per_second * AHEAD) as u32;
    ahead
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::with_database;

    const TEN: BucketSize = BucketSize { holds: 10, fills_in: Duration::from_mins(1) };

    fn shares(pool: &PgPool) -> Shares {
        Shares::new(pool.clone(), CancellationToken::new())
    }

    #[tokio::test]
    async fn two_workers_share_a_bucket_and_a_refused_flood_runs_no_statements() {
        with_database(|pool| async move {
            let (workers, begun) = ([shares(&pool), shares(&pool)], Instant::now());
            let mut permits = Vec::new();
            for n in 0..10 {
                permits.push(workers[n % 2].take("a", TEN).await.unwrap().unwrap());
            }
            for worker in &workers {
                let BucketEmpty { next_in } = worker.take("a", TEN).await.unwrap().unwrap_err();
                let least = 5.0 - begun.elapsed().as_secs_f64();
                assert!((least..=6.0).contains(&next_in.as_secs_f64()), "one in six seconds: {next_in:?}");
            }
            // Without the table, every statement would fail.
            sqlx::raw_sql("alter table rate_buckets rename to gone").execute(&pool).await.unwrap();
            for _ in 0..100 {
                assert!(workers[0].take("a", TEN).await.unwrap().is_err());
            }
            // An unused token is there for the next invite.
            drop(permits.swap_remove(0));
            workers[0].take("a", TEN).await.unwrap().unwrap().used();
            assert!(workers[0].take("a", TEN).await.unwrap().is_err());
            permits.into_iter().for_each(Permit::used);
        })
        .await;
    }

    #[tokio::test]
    async fn many_at_once_take_no_more_than_there_is() {
        with_database(|pool| async move {
            let size = BucketSize { holds: 100, fills_in: Duration::from_hours(1) };
            let worker = shares(&pool);
            let results = futures::future::join_all((0..300).map(|_| worker.take("b", size))).await;
            let taken =
                results.into_iter().filter_map(|result| result.unwrap().ok()).map(Permit::used).count();
            assert_eq!(taken, 100);
        })
        .await;
    }

    #[tokio::test]
    async fn unused_tokens_go_back_to_the_other_workers() {
        with_database(|pool| async move {
            let workers = [shares(&pool), shares(&pool)];
            let permits: Vec<_> = futures::future::join_all((0..10).map(|_| workers[0].take("c", TEN))).await;
            drop(permits);
            assert!(workers[1].take("c", TEN).await.unwrap().is_err());
            for bucket in workers[0].buckets().values() {
                bucket.share().used_at -= UNUSED_AFTER;
            }
            workers[0].give_back_unused().await;
            let fresh = shares(&pool);
            for _ in 0..10 {
                fresh.take("c", TEN).await.unwrap().unwrap().used();
            }
            assert!(fresh.take("c", TEN).await.unwrap().is_err());
            // A changed limit counts at once: with twice as many, the next token is there in half the time.
            let twenty = BucketSize { holds: 20, ..TEN };
            let BucketEmpty { next_in } = fresh.take("c", twenty).await.unwrap().unwrap_err();
            assert!(next_in <= Duration::from_secs(3), "{next_in:?}");
        })
        .await;
    }
}
