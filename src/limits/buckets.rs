//! The table `rate_buckets`, as verbs: one row a bucket, by the generic cell rate algorithm. A bucket is when it is full
//! again, and nothing more, so that no bucket is ever filled.
//!
//! None of these is repeated when its commit may be hidden by a lost connection: what was taken twice is lost, and a
//! limit errs on the side of less.

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
}

/// What a bucket lacks until one can be taken from it, of several buckets the longest wait; zero if there is enough in
/// each. It changes nothing.
pub async fn peek<const N: usize>(pool: &PgPool, asked: [(&str, Size); N]) -> Result<Duration, sqlx::Error> {
    let names = asked.map(|(name, _)| name);
    let (whole, one): (Vec<f64>, Vec<f64>) = asked.iter().map(|(_, size)| size.seconds()).unzip();
    let wait = sqlx::query_scalar!(
        r#"
        select max(extract(epoch from b.full_at - now())::float8 + a.one - a.whole)
          from unnest($1::text[], $2::float8[], $3::float8[]) as a (name, whole, one)
          join rate_buckets b on b.name = any(array[a.name])
        "#,
        &names as &[&str],
        &whole,
        &one,
    )
    .fetch_one(pool)
    .await?;
    Ok(Duration::try_from_secs_f64(wait.unwrap_or_default()).unwrap_or_default())
}

/// Takes one from each of these buckets, even from an empty one: then the wait until there is one again is longer.
pub async fn overdraw<const N: usize>(pool: &PgPool, from: [(&str, Size); N]) -> Result<(), sqlx::Error> {
    let names = from.map(|(name, _)| name);
    let one: Vec<f64> = from.iter().map(|(_, size)| size.seconds().1).collect();
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
    .await?;
    Ok(())
}
