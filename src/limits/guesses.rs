//! Wrong guesses of session keys: a key has few digits, and whoever has a group's API key can mint many users.

use super::buckets::{self, Holds, Size};
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
/// Of one user of a group.
const OF_A_USER: Size = Size { holds: 20, fills_in: TEN_MINUTES };
/// Of all users of a group.
const OF_A_GROUP: Size = Size { holds: 200, fills_in: TEN_MINUTES };

/// How long a refusal is remembered: a flood of guesses costs the database one look in that time.
const REFUSAL_HOLDS: Duration = Duration::from_secs(1);
/// How long a guess may wait for others of its user or group: shorter than the gateway's patience with the database.
const QUEUES_AT_MOST: Duration = Duration::from_secs(2);
/// Users and groups that are remembered before those without a guess in hand are forgotten.
const REMEMBERED: usize = 10_000;

/// Wrong guesses of session keys, per (group, user) and, higher, per group; held in Postgres.
#[derive(Debug)]
pub struct Guesses {
    pool: PgPool,
    guessers: Mutex<HashMap<String, Arc<Guesser>>>,
}

/// A user or a group, in this process.
#[derive(Debug)]
struct Guesser {
    bucket: String,
    size: Size,
    /// Guesses that may be wrong, and are not counted yet.
    in_hand: AtomicUsize,
    /// What the bucket had when it was last looked at.
    left: AtomicUsize,
    refusal: Mutex<Option<Refused>>,
    /// Held by the one guess that may wait for those in hand, while few are left.
    queue: tokio::sync::Mutex<()>,
    /// One of the guesses in hand was right, is counted, or was given up.
    decided: Notify,
}

/// Why there is no turn now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoTurn {
    /// Too many were wrong; worth asking again after that.
    TooManyWrong(Duration),
    /// Few are left, and too many wait for those in hand.
    TooManyWait,
}

/// What a guesser was refused, without asking the database again.
#[derive(Debug, Clone, Copy)]
struct Refused {
    since: Instant,
    after: Duration,
    holds: Duration,
}

/// The right to guess once. Until it is dropped, the guess may be wrong and not counted.
#[derive(Debug)]
pub struct Turn {
    pool: PgPool,
    // Dropped in this order: a guess that waits for the group then finds both counted down.
    user: InHand,
    group: InHand,
}

/// A guess among those in hand of a guesser.
#[derive(Debug)]
struct InHand {
    guesser: Arc<Guesser>,
    /// How many there were with this one.
    place: usize,
}

impl Guesses {
    pub fn new(pool: PgPool) -> Self {
        Self { pool, guessers: Mutex::default() }
    }

    /// The right to guess once. While plenty are left, this only looks into the database. While those in hand, of the same
    /// user or group, may use up what is left, it waits for them, and behind others that wait: so this process does not
    /// exceed the limits, however many come at once. This changes nothing in the database.
    pub async fn turn(&self, group: GroupId, user: &str) -> Result<Result<Turn, NoTurn>, sqlx::Error> {
        let (of_user, of_group) = names(group, user);
        let each = [self.guesser(of_user, OF_A_USER), self.guesser(of_group, OF_A_GROUP)];
        let give_up = tokio::time::Instant::now() + QUEUES_AT_MOST;
        // The user's place in the queue is always taken before the group's: two guesses never wait for each other.
        let mut heads = [None, None];
        loop {
            if let Some(after) = each.iter().filter_map(|guesser| guesser.refused()).max() {
                return Ok(Err(NoTurn::TooManyWrong(after)));
            }
            // In hand before the database is asked: what was counted by then is in its answer, and the rest in the places.
            let begun = each.each_ref().map(InHand::begin);
            let mut left = each.each_ref().map(|guesser| guesser.left.load(Ordering::SeqCst));
            let fits = |n: usize, left: &[usize; 2]| begun[n].place <= left[n];
            if (0..2).all(|n| heads[n].is_some() || fits(n, &left)) {
                left = match self.look(&each).await? {
                    Ok(left) => left,
                    Err(after) => return Ok(Err(NoTurn::TooManyWrong(after))),
                };
                if (0..2).all(|n| fits(n, &left)) {
                    let [user, group] = begun;
                    return Ok(Ok(Turn { pool: self.pool.clone(), user, group }));
                }
            }
            let short = if fits(1, &left) { &each[..1] } else { &each[..] };
            drop(begun);
            if tokio::time::timeout_at(give_up, wait(short, &mut heads)).await.is_err() {
                return Ok(Err(NoTurn::TooManyWait));
            }
        }
    }

    /// Asks the database what is left. `Err(after)`: nothing; one more after that.
    async fn look(&self, each: &[Arc<Guesser>; 2]) -> Result<Result<[usize; 2], Duration>, sqlx::Error> {
        let asked = each.each_ref().map(|guesser| (guesser.bucket.as_str(), guesser.size));
        match buckets::peek(&self.pool, asked).await? {
            [Holds::Some(of_user), Holds::Some(of_group)] => {
                each[0].left.store(of_user, Ordering::SeqCst);
                each[1].left.store(of_group, Ordering::SeqCst);
                Ok(Ok([of_user, of_group]))
            }
            held => {
                let after = held.iter().map(Holds::wait).max().unwrap_or_default();
                each[0].refuse(after, REFUSAL_HOLDS.min(after));
                Ok(Err(after))
            }
        }
    }

    fn guesser(&self, bucket: String, size: Size) -> Arc<Guesser> {
        let mut guessers = self.guessers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = guessers.get(&bucket) {
            return known.clone();
        }
        if guessers.len() >= REMEMBERED {
            guessers.retain(|_, guesser| Arc::strong_count(guesser) > 1);
        }
        let guesser = Arc::new(Guesser {
            bucket: bucket.clone(),
            size,
            in_hand: AtomicUsize::new(0),
            left: AtomicUsize::new(usize::try_from(size.holds).unwrap_or(usize::MAX)),
            refusal: Mutex::default(),
            queue: tokio::sync::Mutex::default(),
            decided: Notify::new(),
        });
        guessers.insert(bucket, guesser.clone());
        guesser
    }
}

/// Comes to the head of the queues of these, or, where this is there already, waits for those in hand.
async fn wait<'a>(short: &'a [Arc<Guesser>], heads: &mut [Option<MutexGuard<'a, ()>>; 2]) {
    let mut is_new = false;
    for (guesser, head) in short.iter().zip(heads) {
        if head.is_none() {
            *head = Some(guesser.queue.lock().await);
            is_new = true;
        }
    }
    // What is left may be known from long ago: it is looked at first.
    if is_new {
        return;
    }
    for guesser in short {
        guesser.room().await;
    }
}

impl Guesser {
    fn refused(&self) -> Option<Duration> {
        let refusal = *self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = refusal.filter(|refused| refused.since.elapsed() < refused.holds)?;
        Some(refused.after.saturating_sub(refused.since.elapsed()))
    }

    /// Waits until one more may fit beside those in hand.
    async fn room(&self) {
        loop {
            let decided = self.decided.notified();
            // With none in hand, the database says whether there is one.
            if self.in_hand.load(Ordering::SeqCst) < self.left.load(Ordering::SeqCst).max(1) {
                return;
            }
            decided.await;
        }
    }

    fn refuse(&self, after: Duration, holds: Duration) {
        let refused = Refused { since: Instant::now(), after, holds };
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
    }
}

impl InHand {
    fn begin(guesser: &Arc<Guesser>) -> Self {
        let place = guesser.in_hand.fetch_add(1, Ordering::SeqCst) + 1;
        Self { guesser: guesser.clone(), place }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.guesser.in_hand.fetch_sub(1, Ordering::SeqCst);
        self.guesser.decided.notify_waiters();
    }
}

impl Turn {
    /// Counts a wrong guess.
    pub async fn was_wrong(&self) -> Result<(), sqlx::Error> {
        let each = [&self.user, &self.group].map(|one| (one.guesser.bucket.as_str(), one.guesser.size));
        buckets::overdraw(&self.pool, each).await
    }

    /// For a wrong guess that the database could not count: this process refuses the guessers what it would have cost them.
    pub fn hold_against_them(&self) {
        for InHand { guesser, .. } in [&self.user, &self.group] {
            let one = guesser.size.fills_in / guesser.size.holds;
            guesser.refuse(one, one);
        }
    }
}

/// The buckets of a user and of the group. The user's name may be a person's: only its hash is stored.
fn names(group: GroupId, user: &str) -> (String, String) {
    let of_group = format!("guesses/{group}");
    let mut of_user = format!("{of_group}/");
    for byte in &Sha256::digest(user.as_bytes())[..16] {
        // Writing to a string does not fail.
        let _ = write!(of_user, "{byte:02x}");
    }
    (of_user, of_group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::with_database;

    fn group(id: i64) -> GroupId {
        GroupId::new(id).unwrap()
    }

    async fn turn(guesses: &Guesses, id: i64, user: &str) -> Result<Turn, Duration> {
        guesses.turn(group(id), user).await.unwrap().map_err(|none| match none {
            NoTurn::TooManyWrong(after) => after,
            NoTurn::TooManyWait => panic!("it waited too long"),
        })
    }

    #[tokio::test]
    async fn while_plenty_are_left_guesses_of_a_group_are_looked_up_side_by_side() {
        with_database(|pool| async move {
            let guesses = Guesses::new(pool.clone());
            let mut locked = crate::db::begin(&pool).await.unwrap();
            sqlx::query("lock table rate_buckets in access exclusive mode")
                .execute(&mut *locked)
                .await
                .unwrap();
            let users = ["gkey:1", "gkey:1", "gkey:2", "gkey:3"];
            let turns = futures::future::join_all(users.map(|user| turn(&guesses, 72, user)));
            let look = "select count(*) from pg_stat_activity
                         where datname = current_database() and wait_event_type = 'Lock'";
            let all_look = async {
                while sqlx::query_scalar::<_, i64>(look).fetch_one(&pool).await.unwrap() < 4 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                locked.rollback().await.unwrap();
            };
            let within = Duration::from_secs(20);
            let (turns, ()) =
                tokio::time::timeout(within, async { tokio::join!(turns, all_look) }).await.unwrap();
            assert!(turns.iter().all(Result::is_ok), "{turns:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_user_who_has_few_left_waits_alone_and_not_for_long() {
        with_database(|pool| async move {
            let guesses = Guesses::new(pool.clone());
            for _ in 0..19 {
                turn(&guesses, 72, "gkey:1").await.unwrap().was_wrong().await.unwrap();
            }
            let in_hand = turn(&guesses, 72, "gkey:1").await.unwrap();
            let others = async {
                tokio::task::yield_now().await;
                let begun = Instant::now();
                for n in 2..20 {
                    drop(turn(&guesses, 72, &format!("gkey:{n}")).await.unwrap());
                }
                begun.elapsed()
            };
            let waiting = [(); 5].map(|()| guesses.turn(group(72), "gkey:1"));
            let (waited, others) = tokio::join!(futures::future::join_all(waiting), others);
            for turn in waited {
                assert_eq!(turn.unwrap().unwrap_err(), NoTurn::TooManyWait);
            }
            assert!(others < QUEUES_AT_MOST, "others waited too: {others:?}");
            // The next one waits until that one was right.
            let decide = async {
                tokio::task::yield_now().await;
                drop(in_hand);
            };
            let (next, ()) = tokio::join!(turn(&guesses, 72, "gkey:1"), decide);
            next.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn a_thousand_guesses_of_many_users_do_not_exceed_the_groups_limit() {
        with_database(|pool| async move {
            let (guesses, begun) = (Guesses::new(pool.clone()), Instant::now());
            let guess = async |n: usize| match guesses.turn(group(72), &format!("gkey:{}", n % 100)).await {
                Ok(Ok(turn)) => turn.was_wrong().await.map(|()| 1).unwrap(),
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
            let guesses = Guesses::new(pool.clone());
            for _ in 0..20 {
                turn(&guesses, 72, "gkey:12345").await.unwrap().was_wrong().await.unwrap();
            }
            let after = turn(&guesses, 72, "gkey:12345").await.unwrap_err();
            assert!((29.0..=30.0).contains(&after.as_secs_f64()), "one more after half a minute: {after:?}");
            // Another process has not refused yet, and sees the same.
            let others = Guesses::new(pool.clone());
            let there = turn(&others, 72, "gkey:12345").await.unwrap_err();
            assert!(there <= after && there + Duration::from_secs(2) > after, "{there:?}");
            for (id, user) in [(72, "gkey:1234"), (73, "gkey:12345")] {
                assert!(turn(&guesses, id, user).await.is_ok(), "{id} {user}");
            }
            let named: Vec<String> =
                sqlx::query_scalar("select name from rate_buckets").fetch_all(&pool).await.unwrap();
            assert!(named.len() == 2 && named.iter().all(|name| !name.contains("12345")), "{named:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_group_has_two_hundred_however_many_users_are_minted() {
        with_database(|pool| async move {
            let (guesses, begun) = (Guesses::new(pool.clone()), Instant::now());
            let mut wrong = 0;
            // One more is allowed every three seconds, however slow this machine is.
            let after = loop {
                match turn(&guesses, 72, &format!("gkey:{wrong}")).await {
                    Ok(turn) => turn.was_wrong().await.unwrap(),
                    Err(after) => break after,
                }
                wrong += 1;
            };
            assert!((200..=200 + begun.elapsed().as_secs() / 3 + 1).contains(&wrong), "{wrong}");
            assert!(after <= Duration::from_secs(3), "{after:?}");
            assert!(turn(&guesses, 73, "gkey:another").await.is_ok());
        })
        .await;
    }

    #[tokio::test]
    async fn a_thousand_guesses_at_once_do_not_exceed_the_limit() {
        with_database(|pool| async move {
            let (guesses, begun) = (Guesses::new(pool.clone()), Instant::now());
            let guess = async || match turn(&guesses, 72, "gkey:12345").await {
                Ok(turn) => turn.was_wrong().await.map(|()| 1).unwrap(),
                Err(_) => 0,
            };
            let wrong: u64 = futures::future::join_all((0..1_000).map(|_| guess())).await.into_iter().sum();
            assert!((20..=20 + begun.elapsed().as_secs() / 30).contains(&wrong), "{wrong}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_guess_that_cannot_be_counted_is_held_against_its_user() {
        with_database(|pool| async move {
            let guesses = Guesses::new(pool.clone());
            turn(&guesses, 72, "gkey:12345").await.unwrap().hold_against_them();
            let after = turn(&guesses, 72, "gkey:12345").await.unwrap_err();
            assert!((29.0..=30.0).contains(&after.as_secs_f64()), "{after:?}");
            let of_group = turn(&guesses, 72, "gkey:1").await.unwrap_err();
            assert!((2.0..=3.0).contains(&of_group.as_secs_f64()), "{of_group:?}");
            assert!(turn(&guesses, 73, "gkey:1").await.is_ok());
        })
        .await;
    }
}
