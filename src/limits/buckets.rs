//! The table `rate_buckets`, as verbs: one row a bucket, by the generic cell rate algorithm. A bucket is when it is full
//! again, and nothing more, so that no bucket is ever filled.
//!
//! None of these is repeated when its commit may be hidden by a lost connection: what was taken twice is lost, and a
//! limit errs on the side of less.

use crate::db::{Patience, kinds, repeat};
use sqlx::PgPool;
use std::time::Duration;

/// What a bucket holds when it is full, and in what time it fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub holds: u32,
    pub fills_in: Duration,
}

impl Size {
    /// In seconds: from empty to full, and for one.
    fn seconds(self) -> (f64, f64) {
        let whole = self.fills_in.as_secs_f64();
        (whole, whole / f64::from(self.holds.max(1)))
    }

    /// What a bucket has that is full in so many seconds.
    fn holds(self, full_in: f64) -> Holds {
        let (whole, one) = self.seconds();
        let wait = full_in + one - whole;
        if wait > 0.0 {
            return Holds::Nothing(Duration::try_from_secs_f64(wait).unwrap_or_default());
        }
        let full_in = Duration::try_from_secs_f64(full_in).unwrap_or_default();
        let left = self.fills_in.saturating_sub(full_in).as_nanos();
        let one = self.fills_in.as_nanos() / u128::from(self.holds.max(1));
        Holds::Some(usize::try_from(left / one.max(1)).unwrap_or(usize::MAX).max(1))
    }
}

/// What a bucket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// So many, and at least one.
    Some(usize),
    /// None; one more after this time.
    Nothing(Duration),
}

impl Holds {
    /// How long it takes until there is one.
    pub fn wait(&self) -> Duration {
        match self {
            Self::Some(_) => Duration::ZERO,
            Self::Nothing(wait) => *wait,
        }
    }
}

/// What each of these buckets has, in their order. It changes nothing.
pub async fn peek<const N: usize>(
    pool: &PgPool,
    asked: [(&str, Size); N],
) -> Result<[Holds; N], sqlx::Error> {
    let names = asked.map(|(name, _)| name);
    let look = || {
        sqlx::query!(
            r#"
        select name, extract(epoch from full_at - now())::float8 as "full_in!"
          from rate_buckets where name = any($1::text[])
        "#,
            &names as &[&str],
        )
        .fetch_all(pool)
    };
    let found = repeat(&kinds::PEEK_AT_GUESSES, Patience::Brief, look).await?;
    Ok(asked.map(|(name, size)| {
        let full_in = found.iter().find(|row| row.name == name).map_or(0.0, |row| row.full_in);
        size.holds(full_in)
    }))
}

/// Takes one from each of these buckets, even from an empty one: then the wait until there is one again is longer.
pub async fn overdraw<const N: usize>(pool: &PgPool, from: [(&str, Size); N]) -> Result<(), sqlx::Error> {
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

/// What was granted, and after which time there is one more.
#[derive(Debug, Clone, Copy)]
pub struct Granted {
    pub count: u32,
    pub next: Duration,
}

/// Takes `wanted` from a bucket, or as many as there are.
pub async fn take(pool: &PgPool, name: &str, size: Size, wanted: u32) -> Result<Granted, sqlx::Error> {
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
    Ok(Granted {
        count: u32::try_from(taken.granted).unwrap_or_default(),
        next: Duration::try_from_secs_f64(taken.next).unwrap_or_default(),
    })
}

/// Gives back what was taken and not used.
pub async fn give_back(pool: &PgPool, name: &str, size: Size, unused: u32) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update rate_buckets set full_at = full_at - make_interval(secs => $2) where name = $1",
        name,
        f64::from(unused) * size.seconds().1,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Reserves `slots` points in time, each `apart` from the one before and from those of others; answers how far off the
/// first one is. There is always another: this refuses nobody.
pub async fn reserve(
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

/// Deletes full buckets, which say no more than ones that are not there.
pub async fn forget(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from rate_buckets where full_at < now() - interval '1 minute'")
        .execute(pool)
        .await?;
    Ok(())
}
