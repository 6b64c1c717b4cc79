//! The table `rate_buckets`, as verbs: one row a bucket, by the generic cell rate algorithm. The row stores only when the
//! bucket is full again, so no statement ever has to fill it.
//!
//! A statement that changes a bucket is not repeated when a lost connection may hide its commit: the tokens that it took are
//! then lost. A limit may refuse too much, and never admits too much.

use crate::db::{Patience, kinds, repeat};
use sqlx::PgPool;
use std::time::Duration;

/// How many tokens a bucket holds when it is full, and how long it takes to fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BucketSize {
    pub holds: u32,
    pub fills_in: Duration,
}

impl BucketSize {
    /// Seconds until an empty bucket is full, and until it has one token.
    fn seconds(self) -> (f64, f64) {
        let whole = self.fills_in.as_secs_f64();
        (whole, whole / f64::from(self.holds.max(1)))
    }

    /// The level of a bucket that is full in so many seconds.
    fn level(self, full_in: f64) -> BucketLevel {
        let (whole, one) = self.seconds();
        let wait = full_in + one - whole;
        if wait > 0.0 {
            return BucketLevel::Empty { next_in: Duration::try_from_secs_f64(wait).unwrap_or_default() };
        }
        let full_in = Duration::try_from_secs_f64(full_in).unwrap_or_default();
        let left = self.fills_in.saturating_sub(full_in).as_nanos();
        let one = self.fills_in.as_nanos() / u128::from(self.holds.max(1));
        BucketLevel::Tokens(usize::try_from(left / one.max(1)).unwrap_or(usize::MAX).max(1))
    }
}

/// How many tokens a bucket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BucketLevel {
    /// At least one.
    Tokens(usize),
    Empty {
        /// Until there is one token.
        next_in: Duration,
    },
}

impl BucketLevel {
    /// How long it takes until there is a token.
    pub(super) fn wait(&self) -> Duration {
        match self {
            Self::Tokens(_) => Duration::ZERO,
            Self::Empty { next_in } => *next_in,
        }
    }
}

/// Reads the level of each of these buckets, in their order. Changes nothing.
pub(super) async fn peek<const N: usize>(
    pool: &PgPool,
    buckets: [(&str, BucketSize); N],
) -> Result<[BucketLevel; N], sqlx::Error> {
    let names = buckets.map(|(name, _)| name);
    let read = || {
        sqlx::query!(
            r#"
        select name, extract(epoch from full_at - now())::float8 as "full_in!"
          from rate_buckets where name = any($1::text[])
        "#,
            &names as &[&str],
        )
        .fetch_all(pool)
    };
    let found = repeat(&kinds::PEEK_AT_GUESSES, Patience::Brief, read).await?;
    Ok(buckets.map(|(name, size)| {
        let full_in = found.iter().find(|row| row.name == name).map_or(0.0, |row| row.full_in);
        size.level(full_in)
    }))
}

/// Takes one token from each of these buckets. An empty bucket then takes longer until it has a token again.
pub(super) async fn overdraw<const N: usize>(
    pool: &PgPool,
    from: [(&str, BucketSize); N],
) -> Result<(), sqlx::Error> {
    let names = from.map(|(name, _)| name);
    let one: Vec<f64> = from.iter().map(|(_, size)| size.seconds().1).collect();
    let take = || {
        sqlx::query!(
            r#"
        insert into rate_buckets as b (name, full_at, granted)
        select a.name, now() + make_interval(secs => a.one), 1
          from unnest($1::text[], $2::float8[]) as a (name, one)
         -- Always in the same order: two of these never wait for each other.
         order by a.name
        on conflict (name) do update
           set full_at = greatest(b.full_at, now()) + (excluded.full_at - now()), granted = 1
        "#,
            &names as &[&str],
            &one,
        )
        .execute(pool)
    };
    repeat(&kinds::COUNT_GUESS, Patience::Brief, take).await?;
    Ok(())
}

/// The tokens that a statement took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grant {
    pub count: u32,
    /// Until there is one more.
    pub next_in: Duration,
}

/// Takes `wanted` tokens from a bucket, or as many as there are.
pub(super) async fn take(
    pool: &PgPool,
    name: &str,
    size: BucketSize,
    wanted: u32,
) -> Result<Grant, sqlx::Error> {
    let (whole, one) = size.seconds();
    let taken = sqlx::query!(
        r#"
        insert into rate_buckets as b (name, full_at, granted)
        values ($1, now() + make_interval(secs => $2::int * $3::float8), $2)
        on conflict (name) do update
           set full_at = greatest(b.full_at, now()) + $3 *
                   -- A millionth: the clock's own steps are no reason to refuse.
                   make_interval(secs => greatest(0, least($2, floor(1e-6 + ($4::float8 - greatest(0,
                       extract(epoch from b.full_at - now())::float8)) / $3)))),
               granted = greatest(0, least($2, floor(1e-6 + ($4 - greatest(0,
                       extract(epoch from b.full_at - now())::float8)) / $3)))
        returning granted, (extract(epoch from full_at - now())::float8 + $3 - $4) as "next!"
        "#,
        name,
        i32::try_from(wanted.min(size.holds)).unwrap_or(i32::MAX),
        one,
        whole,
    )
    .fetch_one(pool)
    .await?;
    Ok(Grant {
        count: u32::try_from(taken.granted).unwrap_or_default(),
        next_in: Duration::try_from_secs_f64(taken.next).unwrap_or_default(),
    })
}

/// Gives unused tokens back.
pub(super) async fn give_back(
    pool: &PgPool,
    name: &str,
    size: BucketSize,
    unused: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update rate_buckets set full_at = full_at - make_interval(secs => $2) where name = $1",
        name,
        f64::from(unused) * size.seconds().1,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Reserves `slots` points in time, each `apart` from the one before and from those of other workers. Returns how far off
/// the first one is. It never refuses.
pub(super) async fn reserve(
    pool: &PgPool,
    name: &str,
    apart: Duration,
    slots: u32,
) -> Result<Duration, sqlx::Error> {
    let starts_in = sqlx::query_scalar!(
        r#"
        insert into rate_buckets as b (name, full_at, granted) values ($1, now() + make_interval(secs => $3), $2)
        on conflict (name) do update
           set full_at = greatest(b.full_at, now()) + make_interval(secs => $3), granted = $2
        returning extract(epoch from full_at - now())::float8 - $3::float8 as "starts_in!"
        "#,
        name,
        i32::try_from(slots).unwrap_or(i32::MAX),
        apart.as_secs_f64() * f64::from(slots),
    )
    .fetch_one(pool)
    .await?;
    Ok(Duration::try_from_secs_f64(starts_in).unwrap_or_default())
}

/// Deletes full buckets: a bucket without a row is full too.
pub(super) async fn forget(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from rate_buckets where full_at < now() - interval '1 minute'")
        .execute(pool)
        .await?;
    Ok(())
}
