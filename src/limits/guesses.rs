//! Wrong guesses of session keys. A key has few digits, and the owner of a group's API key can mint tokens for many users.

use super::{
    buckets::{self, BucketLevel, BucketSize},
    share::BucketEmpty,
};
use crate::group_id::GroupId;
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{MutexGuard, Notify};

const TEN_MINUTES: Duration = Duration::from_mins(10);
/// The limit of one user of a group.
const PER_USER: BucketSize = BucketSize { holds: 20, fills_in: TEN_MINUTES };
/// The limit of all users of a group together.
const PER_GROUP: BucketSize = BucketSize { holds: 200, fills_in: TEN_MINUTES };

/// How long a refusal is remembered: in this time a flood of guesses costs the database one query.
const REFUSAL_HOLDS: Duration = Duration::from_secs(1);
/// How long a guess may wait for others of its user or group. Shorter than the gateway waits for the database.
const WAIT_AT_MOST: Duration = Duration::from_secs(2);
/// With more users and groups in memory than this, those without a pending guess are dropped.
const GUESSERS_AT_MOST: usize = 10_000;

/// Limits wrong guesses of session keys, for each user of a group and for the group. The counts are in Postgres.
#[derive(Debug)]
pub(crate) struct Guesses {
    pool: PgPool,
    guessers: Mutex<HashMap<String, Arc<Guesser>>>,
}

/// A user or a group, as this process knows it.
#[derive(Debug)]
struct Guesser {
    bucket: String,
    size: BucketSize,
    /// Guesses that may be wrong and are not counted yet.
    pending: AtomicUsize,
    /// The bucket's tokens when they were last read.
    left: AtomicUsize,
    refusal: Mutex<Option<StoredRefusal>>,
    /// While few tokens are left, the one guess that has this lock waits for the pending ones.
    queue: tokio::sync::Mutex<()>,
    /// Notified when a pending guess was right, is counted, or was given up.
    decided: Notify,
}

/// Why a guess is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuessRefusal {
    /// Too many guesses were wrong. The next one is allowed after this time.
    TooManyWrong(Duration),
    /// Few guesses are left, and too many wait for the pending ones.
    TooManyWait,
}

/// A refusal that this process repeats for a while without a query.
#[derive(Debug, Clone, Copy)]
struct StoredRefusal {
    since: Instant,
    /// From `since` until there is a token.
    after: Duration,
    /// From `since` until the database is queried again.
    holds: Duration,
}

/// The right to guess once. Until it is dropped, the guess counts as pending.
#[derive(Debug)]
pub(crate) struct GuessPermit {
    pool: PgPool,
    // Dropped in this order: a guess that waits for the group then finds neither pending.
    user: PendingGuess,
    group: PendingGuess,
}

/// A pending guess of a guesser.
#[derive(Debug)]
struct PendingGuess {
    guesser: Arc<Guesser>,
    /// How many guesses were pending, with this one.
    position: usize,
}

impl Guesses {
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, guessers: Mutex::default() }
    }

    /// Asks for the right to guess once. While plenty of tokens are left, this only queries the database. While pending
    /// guesses of the same user or group may use up the rest, it queues and waits for them. So this process does not exceed
    /// the limits, however many guesses come at once. It changes nothing in the database.
    pub(crate) async fn permit(
        &self,
        group: GroupId,
        user: &str,
    ) -> Result<Result<GuessPermit, GuessRefusal>, sqlx::Error> {
        let (user_bucket, group_bucket) = bucket_names(group, user);
        let guessers = [self.guesser(user_bucket, PER_USER), self.guesser(group_bucket, PER_GROUP)];
        let give_up = tokio::time::Instant::now() + WAIT_AT_MOST;
        // The user's queue is always locked before the group's: two guesses never wait for each other.
        let mut queued = [None, None];
        loop {
            if let Some(after) = guessers.iter().filter_map(|guesser| guesser.stored_refusal()).max() {
                return Ok(Err(GuessRefusal::TooManyWrong(after)));
            }
            // Pending before the query: guesses that are counted by then are in its result, the others in the positions.
            let pending = guessers.each_ref().map(PendingGuess::begin);
            let mut left = guessers.each_ref().map(|guesser| guesser.left.load(Ordering::SeqCst));
            let fits = |n: usize, left: &[usize; 2]| pending[n].position <= left[n];
            if (0..2).all(|n| queued[n].is_some() || fits(n, &left)) {
                left = match self.read_left(&guessers).await? {
                    Ok(left) => left,
                    Err(BucketEmpty { next_in }) => return Ok(Err(GuessRefusal::TooManyWrong(next_in))),
                };
                if (0..2).all(|n| fits(n, &left)) {
                    let [user, group] = pending;
                    return Ok(Ok(GuessPermit { pool: self.pool.clone(), user, group }));
                }
            }
            let short = if fits(1, &left) { &guessers[..1] } else { &guessers[..] };
            drop(pending);
            if tokio::time::timeout_at(give_up, wait(short, &mut queued)).await.is_err() {
                return Ok(Err(GuessRefusal::TooManyWait));
            }
        }
    }

    /// Reads from the database how many guesses are left to the user and to the group.
    async fn read_left(
        &self,
        guessers: &[Arc<Guesser>; 2],
    ) -> Result<Result<[usize; 2], BucketEmpty>, sqlx::Error> {
        let names = guessers.each_ref().map(|guesser| (guesser.bucket.as_str(), guesser.size));
        match buckets::peek(&self.pool, names).await? {
            [BucketLevel::Tokens(of_user), BucketLevel::Tokens(of_group)] => {
                guessers[0].left.store(of_user, Ordering::SeqCst);
                guessers[1].left.store(of_group, Ordering::SeqCst);
                Ok(Ok([of_user, of_group]))
            }
            levels => {
                let next_in = levels.iter().map(BucketLevel::wait).max().unwrap_or_default();
                guessers[0].refuse(next_in, REFUSAL_HOLDS.min(next_in));
                Ok(Err(BucketEmpty { next_in }))
            }
        }
    }

    fn guesser(&self, bucket: String, size: BucketSize) -> Arc<Guesser> {
        let mut guessers = self.guessers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = guessers.get(&bucket) {
            return known.clone();
        }
        if guessers.len() >= GUESSERS_AT_MOST {
            guessers.retain(|_, guesser| Arc::strong_count(guesser) > 1);
        }
        let guesser = Arc::new(Guesser {
            bucket: bucket.clone(),
            size,
            pending: AtomicUsize::new(0),
            left: AtomicUsize::new(usize::try_from(size.holds).unwrap_or(usize::MAX)),
            refusal: Mutex::default(),
            queue: tokio::sync::Mutex::default(),
            decided: Notify::new(),
        });
        guessers.insert(bucket, guesser.clone());
        guesser
    }
}

/// Waits in the queues of these guessers. If this guess has all of their locks already, waits for the pending guesses.
async fn wait<'a>(short: &'a [Arc<Guesser>], queued: &mut [Option<MutexGuard<'a, ()>>; 2]) {
    let mut is_new = false;
    for (guesser, lock) in short.iter().zip(queued) {
        if lock.is_none() {
            *lock = Some(guesser.queue.lock().await);
            is_new = true;
        }
    }
    // `left` may be old: read it first.
    if is_new {
        return;
    }
    for guesser in short {
        guesser.wait_for_room().await;
    }
}

impl Guesser {
    fn stored_refusal(&self) -> Option<Duration> {
        let refusal = *self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = refusal.filter(|refusal| refusal.since.elapsed() < refusal.holds)?;
        Some(refusal.after.saturating_sub(refusal.since.elapsed()))
    }

    /// Waits until one more guess may fit beside the pending ones.
    async fn wait_for_room(&self) {
        loop {
            let decided = self.decided.notified();
            // With no pending guess, the database knows whether there is a token.
            if self.pending.load(Ordering::SeqCst) < self.left.load(Ordering::SeqCst).max(1) {
                return;
            }
            decided.await;
        }
    }

    fn refuse(&self, after: Duration, holds: Duration) {
        let refusal = StoredRefusal { since: Instant::now(), after, holds };
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }
}

impl PendingGuess {
    fn begin(guesser: &Arc<Guesser>) -> Self {
        let position = guesser.pending.fetch_add(1, Ordering::SeqCst) + 1;
        Self { guesser: guesser.clone(), position }
    }
}

impl Drop for PendingGuess {
    fn drop(&mut self) {
        self.guesser.pending.fetch_sub(1, Ordering::SeqCst);
        self.guesser.decided.notify_waiters();
    }
}

impl GuessPermit {
    /// Counts a wrong guess.
    pub(crate) async fn count_wrong(&self) -> Result<(), sqlx::Error> {
        let guessers =
            [&self.user, &self.group].map(|guess| (guess.guesser.bucket.as_str(), guess.guesser.size));
        buckets::overdraw(&self.pool, guessers).await
    }

    /// For a wrong guess that the database could not count: this process refuses the user and the group for as long as the
    /// guess would have cost them.
    pub(crate) fn count_locally(&self) {
        for PendingGuess { guesser, .. } in [&self.user, &self.group] {
            let one = guesser.size.fills_in / guesser.size.holds;
            guesser.refuse(one, one);
        }
    }
}

/// The names of the buckets of a user and of the group. A user's name may be a person's: only its hash is stored.
fn bucket_names(group: GroupId, user: &str) -> (String, String) {
    let group_bucket = format!("guesses/{group}");
    let mut user_bucket = format!("{group_bucket}/");
    for byte in &Sha256::digest(user.as_bytes())[..16] {
        // Writing to a string does not fail.
        let _ = write!(user_bucket, "{byte:02x}");
    }
    (user_bucket, group_bucket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::with_database;

    fn group(id: i64) -> GroupId {
        GroupId::new(id).unwrap()
    }

    async fn permit(guesses: &Guesses, id: i64, user: &str) -> Result<GuessPermit, Duration> {
        guesses.permit(group(id), user).await.unwrap().map_err(|refusal| match refusal {
            GuessRefusal::TooManyWrong(after) => after,
            GuessRefusal::TooManyWait => panic!("it waited too long"),
        })
    }

    #[tokio::test]
    async fn while_plenty_are_left_guesses_of_a_group_run_side_by_side() {
        with_database(|pool| async move {
            let guesses = Guesses::new(pool.clone());
            let mut locked = crate::db::begin(&pool).await.unwrap();
            sqlx::query("lock table rate_buckets in access exclusive mode")
                .execute(&mut *locked)
                .await
                .unwrap();
            let users = ["gkey:1", "gkey:1", "gkey:2", "gkey:3"];
            let permits = futures::future::join_all(users.map(|user| permit(&guesses, 72, user)));
            let waiting = "select count(*) from pg_stat_activity
                         where datname = current_database() and wait_event_type = 'Lock'";
            let all_wait = async {
                while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool).await.unwrap() < 4 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                locked.rollback().await.unwrap();
            };
            let within = Duration::from_secs(20);
            let (permits, ()) =
                tokio::time::timeout(within, async { tokio::join!(permits, all_wait) }).await.unwrap();
            assert!(permits.iter().all(Result::is_ok), "{permits:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_user_who_has_few_left_waits_alone_and_not_for_long() {
        with_database(|pool| async move {
            let guesses = Guesses::new(pool.clone());
            for _ in 0..19 {
                permit(&guesses, 72, "gkey:1").await.unwrap().count_wrong().await.unwrap();
            }
            let pending = permit(&guesses, 72, "gkey:1").await.unwrap();
            // They are permitted while the first user's guesses wait.
            let others = async {
                tokio::task::yield_now().await;
                for n in 2..20 {
                    drop(permit(&guesses, 72, &format!("gkey:{n}")).await.unwrap());
                }
            };
            let waiting = [(); 5].map(|()| guesses.permit(group(72), "gkey:1"));
            let (waited, ()) = tokio::join!(futures::future::join_all(waiting), others);
            for permit in waited {
                assert_eq!(permit.unwrap().unwrap_err(), GuessRefusal::TooManyWait);
            }
            // The next guess waits until the pending one turns out right.
            let decide = async {
                tokio::task::yield_now().await;
                drop(pending);
            };
            let (next, ()) = tokio::join!(permit(&guesses, 72, "gkey:1"), decide);
            next.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn a_thousand_guesses_of_many_users_do_not_exceed_the_groups_limit() {
        with_database(|pool| async move {
            let (guesses, begun) = (Guesses::new(pool.clone()), Instant::now());
            let guess = async |n: usize| match guesses.permit(group(72), &format!("gkey:{}", n % 100)).await {
                Ok(Ok(permit)) => permit.count_wrong().await.map(|()| 1).unwrap(),
                _ => 0,
            };
            let wrong: u64 = futures::future::join_all((0..1_000).map(guess)).await.into_iter().sum();
            assert!((150..=200 + begun.elapsed().as_secs() / 3 + 1).contains(&wrong), "{wrong}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_user_has_twenty_wrong_guesses_and_others_are_not_affected() {
        with_database(|pool| async move {
            let (guesses, begun) = (Guesses::new(pool.clone()), Instant::now());
            for _ in 0..20 {
                permit(&guesses, 72, "gkey:12345").await.unwrap().count_wrong().await.unwrap();
            }
            let after = permit(&guesses, 72, "gkey:12345").await.unwrap_err();
            // One more half a minute after the first, however slow this machine is.
            let half_a_minute = Duration::from_secs(30);
            assert!(after <= half_a_minute && after + begun.elapsed() >= half_a_minute, "{after:?}");
            // Another process, which has stored no refusal, gets the same result.
            let others = Guesses::new(pool.clone());
            let there = permit(&others, 72, "gkey:12345").await.unwrap_err();
            assert!(there <= after && there + begun.elapsed() >= after, "{there:?}");
            for (id, user) in [(72, "gkey:1234"), (73, "gkey:12345")] {
                assert!(permit(&guesses, id, user).await.is_ok(), "{id} {user}");
            }
            let named: Vec<String> =
                sqlx::query_scalar("select name from rate_buckets").fetch_all(&pool).await.unwrap();
            assert!(named.len() == 2 && named.iter().all(|name| !name.contains("12345")), "{named:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_group_has_two_hundred_guesses_for_any_number_of_users() {
        with_database(|pool| async move {
            let (guesses, begun) = (Guesses::new(pool.clone()), Instant::now());
            let mut wrong = 0;
            // One more is allowed every three seconds, however slow this machine is.
            let after = loop {
                match permit(&guesses, 72, &format!("gkey:{wrong}")).await {
                    Ok(permit) => permit.count_wrong().await.unwrap(),
                    Err(after) => break after,
                }
                wrong += 1;
            };
            assert!((200..=200 + begun.elapsed().as_secs() / 3 + 1).contains(&wrong), "{wrong}");
            assert!(after <= Duration::from_secs(3), "{after:?}");
            assert!(permit(&guesses, 73, "gkey:another").await.is_ok());
        })
        .await;
    }

    #[tokio::test]
    async fn a_thousand_guesses_at_once_do_not_exceed_the_limit() {
        with_database(|pool| async move {
            let (guesses, begun) = (Guesses::new(pool.clone()), Instant::now());
            let guess = async || match permit(&guesses, 72, "gkey:12345").await {
                Ok(permit) => permit.count_wrong().await.map(|()| 1).unwrap(),
                Err(_) => 0,
            };
            let wrong: u64 = futures::future::join_all((0..1_000).map(|_| guess())).await.into_iter().sum();
            assert!((20..=20 + begun.elapsed().as_secs() / 30).contains(&wrong), "{wrong}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_guess_that_cannot_be_counted_is_refused_locally() {
        with_database(|pool| async move {
            let (guesses, begun) = (Guesses::new(pool.clone()), Instant::now());
            permit(&guesses, 72, "gkey:12345").await.unwrap().count_locally();
            for (user, seconds) in [("gkey:12345", 30), ("gkey:1", 3)] {
                let (after, most) =
                    (permit(&guesses, 72, user).await.unwrap_err(), Duration::from_secs(seconds));
                assert!(after <= most && after + begun.elapsed() >= most, "{after:?}");
            }
            assert!(permit(&guesses, 73, "gkey:1").await.is_ok());
        })
        .await;
    }
}
