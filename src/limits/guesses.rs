//! Wrong guesses of session keys: a key has few digits, and whoever has a group's API key can mint many users.

use super::buckets::{self, Size};
use crate::group::GroupId;
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use std::{fmt::Write as _, time::Duration};

const TEN_MINUTES: Duration = Duration::from_mins(10);
/// Of one user of a group.
const OF_A_USER: Size = Size { holds: 20, fills_in: TEN_MINUTES };
/// Of all users of a group.
const OF_A_GROUP: Size = Size { holds: 200, fills_in: TEN_MINUTES };

/// Wrong guesses of session keys, per (group, user) and, higher, per group; held in Postgres.
///
/// Guesses that are looked up at the same time are all allowed, and all counted: those beyond the limit make the wait
/// longer.
#[derive(Debug, Clone)]
pub struct Guesses {
    pool: PgPool,
}

impl Guesses {
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// `Err(after)`: too many wrong guesses; worth asking again after that. This only reads.
    pub async fn allowed(&self, group: GroupId, user: &str) -> Result<Result<(), Duration>, sqlx::Error> {
        let (of_user, of_group) = names(group, user);
        let wait = buckets::peek(&self.pool, [(&of_user, OF_A_USER), (&of_group, OF_A_GROUP)]).await?;
        Ok(if wait.is_zero() { Ok(()) } else { Err(wait) })
    }

    /// Counts a wrong guess.
    pub async fn was_wrong(&self, group: GroupId, user: &str) -> Result<(), sqlx::Error> {
        let (of_user, of_group) = names(group, user);
        buckets::overdraw(&self.pool, [(&of_user, OF_A_USER), (&of_group, OF_A_GROUP)]).await
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

    #[tokio::test]
    async fn a_user_has_twenty_wrong_guesses_and_others_are_not_affected() {
        with_database(|pool| async move {
            let guesses = Guesses::new(pool.clone());
            for _ in 0..20 {
                assert_eq!(guesses.allowed(group(72), "gkey:12345").await.unwrap(), Ok(()));
                guesses.was_wrong(group(72), "gkey:12345").await.unwrap();
            }
            let after = guesses.allowed(group(72), "gkey:12345").await.unwrap().unwrap_err();
            assert!((29.0..=30.0).contains(&after.as_secs_f64()), "one more after half a minute: {after:?}");
            // One that was under way already makes the wait longer.
            guesses.was_wrong(group(72), "gkey:12345").await.unwrap();
            let longer = guesses.allowed(group(72), "gkey:12345").await.unwrap().unwrap_err();
            assert!(longer > after + Duration::from_secs(28), "{longer:?}");
            for (id, user) in [(72, "gkey:1234"), (73, "gkey:12345")] {
                assert_eq!(guesses.allowed(group(id), user).await.unwrap(), Ok(()), "{id} {user}");
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
            let (guesses, begun) = (Guesses::new(pool.clone()), std::time::Instant::now());
            let mut wrong = 0;
            // One more is allowed every three seconds, however slow this machine is.
            let after = loop {
                let user = format!("gkey:{wrong}");
                match guesses.allowed(group(72), &user).await.unwrap() {
                    Ok(()) => guesses.was_wrong(group(72), &user).await.unwrap(),
                    Err(after) => break after,
                }
                wrong += 1;
            };
            assert!((200..=200 + begun.elapsed().as_secs() / 3 + 1).contains(&wrong), "{wrong}");
            assert!(after <= Duration::from_secs(3), "{after:?}");
            assert_eq!(guesses.allowed(group(73), "gkey:another").await.unwrap(), Ok(()));
        })
        .await;
    }
}
