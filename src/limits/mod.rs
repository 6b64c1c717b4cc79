//! Limits that hold across workers and gateways, as token buckets in Postgres (docs/LIMITS.md).
//!
//! The limit of texts to one number is not here: the insert of a new session counts the rows of `sessions`.

mod buckets;
mod guesses;
pub(crate) mod metrics;
mod pace;
mod prefixes;
mod share;

pub(crate) use guesses::{GuessRefusal, Guesses};
pub(crate) use pace::Slot;
pub(crate) use share::Permit;

use crate::{
    db::{StatementError, kinds},
    group_id::GroupId,
    phone::{self, PhoneNumber},
    rate_limit::RateLimit,
    refusal::{Code, Decision, Refusal},
    supervise::{Pulse, Task, keep_running},
    trouble::Trouble,
};
use buckets::BucketSize;
use pace::Paces;
use prefixes::Prefixes;
use share::{BucketEmpty, Shares};
use sqlx::PgPool;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often unused tokens go back to their buckets, and ranges of numbers are checked.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// How often full buckets are deleted.
const FORGET_EVERY: Duration = Duration::from_mins(10);

/// A worker's limits, except that of texts to one number.
#[derive(Debug)]
pub struct Limits {
    shares: Arc<Shares>,
    paces: Option<Paces>,
    prefixes: Arc<Mutex<Prefixes>>,
}

/// The right to begin one session of a group. Dropped unused, its tokens can be taken again.
#[derive(Debug, Default)]
pub struct Permits(Vec<Permit>);

impl Permits {
    pub fn used(self) {
        self.0.into_iter().for_each(Permit::used);
    }
}

impl Limits {
    /// `per_second` bounds the texts of one From number. `stop` ends all waiting for slots, `give_up` the waiting for an
    /// unreachable database.
    pub fn start(
        pool: PgPool,
        per_second: Option<f64>,
        stop: CancellationToken,
        give_up: CancellationToken,
    ) -> Self {
        let paces = per_second.map(|rate| Paces::new(pool.clone(), rate, stop.clone(), give_up.clone()));
        let shares = Arc::new(Shares::new(pool.clone(), give_up));
        let prefixes: Arc<Mutex<Prefixes>> = Arc::default();
        let limits = Self { shares: shares.clone(), paces, prefixes: prefixes.clone() };
        keep_running(Task::Limits, stop.clone(), move |pulse| {
            upkeep(pool.clone(), shares.clone(), prefixes.clone(), stop.clone(), pulse)
        });
        limits
    }

    /// Decides whether the group may begin one more session, for this number. `per_minute` and `per_country` are the
    /// group's limits.
    ///
    /// A refusal is `rate_limited`.
    pub async fn admit(
        &self,
        group: GroupId,
        per_minute: Option<u32>,
        per_country: Option<RateLimit>,
        phone: &PhoneNumber,
    ) -> Result<Decision<Permits>, Trouble> {
        let mut permits = Permits::default();
        if let Some(count) = per_minute {
            let size = BucketSize { holds: count, fills_in: Duration::from_mins(1) };
            match Box::pin(self.shares.take(&format!("minute/{group}"), size)).await? {
                Ok(permit) => permits.0.push(permit),
                Err(BucketEmpty { next_in }) => {
                    let message = "the group has sent as many invites as it may for now";
                    return Ok(Err(Refusal::new(Code::RateLimited, message).retry_after(next_in)));
                }
            }
        }
        if let Some(limit) = per_country {
            let size = BucketSize { holds: limit.count, fills_in: limit.window };
            let name = format!("country/{group}/{}", phone::country(phone.as_e164()));
            match Box::pin(self.shares.take(&name, size)).await? {
                Ok(permit) => permits.0.push(permit),
                Err(BucketEmpty { next_in }) => {
                    let message = "the group has texted this country as often as it may for now";
                    let refusal = Refusal::new(Code::RateLimited, message).field("smsPhone");
                    return Ok(Err(refusal.retry_after(next_in)));
                }
            }
        }
        Ok(Ok(permits))
    }

    /// Waits for the From number's next slot. `None` if that takes longer than `patience`.
    pub async fn slot(&self, from_number: &str, patience: Option<Duration>) -> Result<Option<Slot>, Trouble> {
        match &self.paces {
            None => Ok(Some(Slot::unbounded())),
            // Boxed: most workers set no pace, and their invites' futures should have no room for it.
            Some(paces) => Box::pin(paces.slot(from_number, patience)).await,
        }
    }

    /// Counts a text of the group to this number, before it is handed over.
    pub fn count_text(&self, group: GroupId, phone: &PhoneNumber) {
        self.prefixes().count_text(group, phone.as_e164(), Instant::now());
    }

    fn prefixes(&self) -> std::sync::MutexGuard<'_, Prefixes> {
        self.prefixes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn upkeep(
    pool: PgPool,
    shares: Arc<Shares>,
    prefixes: Arc<Mutex<Prefixes>>,
    stop: CancellationToken,
    pulse: Pulse,
) {
    let mut forget_at = Instant::now() + FORGET_EVERY.mul_f64(rand::random_range(0.0..1.0));
    while stop.run_until_cancelled(tokio::time::sleep(UPKEEP_EVERY)).await.is_some() {
        pulse.step("giving unused tokens back to their buckets");
        shares.give_back_unused().await;
        prefixes.lock().unwrap_or_else(PoisonError::into_inner).check(Instant::now());
        if Instant::now() >= forget_at {
            forget_at = Instant::now() + FORGET_EVERY;
            pulse.step("deleting full buckets");
            let forgotten = buckets::forget(&pool).await;
            kinds::FORGET_BUCKETS.note(&forgotten);
            if let Err(error) = forgotten {
                tracing::debug!(error = %error.summary(), "full buckets are not deleted yet");
            }
        }
        pulse.idle();
    }
}
