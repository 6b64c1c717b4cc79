//! Wrong guesses of session keys: a key has few digits, and whoever has a group's API key can mint many users.

use super::buckets::{self, Holds, Size};
use crate::group::GroupId;
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
use tokio::sync::Notify;

const TEN_MINUTES: Duration = Duration::from_mins(10);
/// Of one user of a group.
const OF_A_USER: Size = Size { holds: 20, fills_in: TEN_MINUTES };
/// Of all users of a group.
const OF_A_GROUP: Size = Size { holds: 200, fills_in: TEN_MINUTES };

/// How long a refusal is remembered: a flood of guesses costs the database one look in that time.
const REFUSAL_HOLDS: Duration = Duration::from_secs(1);
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
    refusal: Mutex<Option<Refused>>,
    /// Of a group: held by the one guess of all its users that is about to begin.
    beginning: tokio::sync::Mutex<()>,
    /// Of a group: one of the guesses in hand was right, or is counted.
    decided: Notify,
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
    // Dropped in this order: whoever waits for a decision then finds both counted down.
    user: InHand,
    group: InHand,
    _decides: Decides,
}

/// A guess among those in hand of a guesser.
#[derive(Debug)]
struct InHand {
    guesser: Arc<Guesser>,
    /// How many there were with this one.
    place: usize,
}

#[derive(Debug)]
struct Decides(Arc<Guesser>);

impl Guesses {
    pub fn new(pool: PgPool) -> Self {
        Self { pool, guessers: Mutex::default() }
    }

    /// Waits while guesses in hand, of the same user or group, may use up what is allowed: so this process does not exceed
    /// the limits, however many come at once. `Err(after)`: too many were wrong; worth asking again after that. This
    /// changes nothing in the database.
    pub async fn turn(&self, group: GroupId, user: &str) -> Result<Result<Turn, Duration>, sqlx::Error> {
        let (of_user, of_group) = names(group, user);
        let (user, group) = (self.guesser(of_user, OF_A_USER), self.guesser(of_group, OF_A_GROUP));
        let refused = || user.refused().max(group.refused());
        if let Some(after) = refused() {
            return Ok(Err(after));
        }
        let _beginning = group.beginning.lock().await;
        loop {
            if let Some(after) = refused() {
                return Ok(Err(after));
            }
            let decided = group.decided.notified();
            // In hand before the database is asked: what was counted by then is in its answer, and the rest in the places.
            let [of_user, of_group] = [&user, &group].map(InHand::begin);
            let buckets = [(user.bucket.as_str(), user.size), (group.bucket.as_str(), group.size)];
            let left = match buckets::peek(&self.pool, buckets).await? {
                [Holds::Some(of_user), Holds::Some(of_group)] => [of_user, of_group],
                held => {
                    let after = held.iter().map(Holds::wait).max().unwrap_or_default();
                    user.refuse(after, REFUSAL_HOLDS.min(after));
                    return Ok(Err(after));
                }
            };
            if of_user.place <= left[0] && of_group.place <= left[1] {
                let (pool, decides) = (self.pool.clone(), Decides(group.clone()));
                return Ok(Ok(Turn { pool, user: of_user, group: of_group, _decides: decides }));
            }
            drop([of_user, of_group]);
            decided.await;
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
            refusal: Mutex::default(),
            beginning: tokio::sync::Mutex::default(),
            decided: Notify::new(),
        });
        guessers.insert(bucket, guesser.clone());
        guesser
    }
}

impl Guesser {
    fn refused(&self) -> Option<Duration> {
        let refusal = *self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = refusal.filter(|refused| refused.since.elapsed() < refused.holds)?;
        Some(refused.after.saturating_sub(refused.since.elapsed()))
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
    }
}

impl Drop for Decides {
    fn drop(&mut self) {
        self.0.decided.notify_waiters();
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
        guesses.turn(group(id), user).await.unwrap()
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
