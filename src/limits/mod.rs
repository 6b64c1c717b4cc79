//! Limits that hold across workers and gateways, as token buckets in Postgres (docs/LIMITS.md).
//!
//! Texts to one number are not here: they are counted where they stand, in `sessions`, by the insert of a new one.

mod buckets;
mod guesses;
mod lease;
pub mod metrics;
mod pace;
mod prefixes;

pub use guesses::{Guesses, NoTurn};
pub use lease::Permit;
pub use pace::Slot;

use crate::{
    db::{Passing, kinds},
    group::Group,
    group_id::GroupId,
    phone::{self, PhoneNumber},
    refusal::{Code, Refusal},
    supervise::{Pulse, Task, keep_up},
    trouble::Trouble,
};
use buckets::Size;
use lease::Leases;
use pace::Paces;
use prefixes::Prefixes;
use sqlx::PgPool;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often what was leased and is not used goes back, and what is over is seen.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// How often full buckets are deleted.
const FORGET_EVERY: Duration = Duration::from_mins(10);

/// What bounds a worker's texts, but for those to one number.
#[derive(Debug)]
pub struct Limits {
    leases: Arc<Leases>,
    paces: Option<Paces>,
    prefixes: Arc<Mutex<Prefixes>>,
}

/// The right to begin one session of a group. It goes back, unless it is used.
#[derive(Debug, Default)]
pub struct Permits(Vec<Permit>);

impl Permits {
    pub fn used(self) {
        self.0.into_iter().for_each(Permit::used);
    }
}

impl Limits {
    /// `per_second` are the texts of one sender; `stop` ends all waiting, `give_up` that for a database that is away.
    pub fn start(
        pool: PgPool,
        per_second: Option<f64>,
        stop: CancellationToken,
        give_up: CancellationToken,
    ) -> Self {
        let paces = per_second.map(|rate| Paces::new(pool.clone(), rate, stop.clone(), give_up.clone()));
        let leases = Arc::new(Leases::new(pool.clone(), give_up));
        let prefixes: Arc<Mutex<Prefixes>> = Arc::default();
        let (kept, seen) = (leases.clone(), prefixes.clone());
        keep_up(Task::Limits, stop.clone(), move |pulse| {
            upkeep(pool.clone(), kept.clone(), seen.clone(), stop.clone(), pulse)
        });
        Self { leases, paces, prefixes }
    }

    /// Whether the group may begin one more session, for this number.
    pub async fn admit(
        &self,
        group: &Group,
        phone: &PhoneNumber,
    ) -> Result<Result<Permits, Refusal>, Trouble> {
        let options = &group.options;
        let mut permits = Permits::default();
        if let Some(count) = options.per_minute {
            let size = Size { holds: count, fills_in: Duration::from_mins(1) };
            match Box::pin(self.leases.take(&format!("minute/{}", group.id), size)).await? {
                Ok(permit) => permits.0.push(permit),
                Err(after) => {
                    let message = "the group has sent as many invites as it may for now";
                    return Ok(Err(Refusal::new(Code::RateLimited, message).retry_after(after)));
                }
            }
        }
        if let Some(limit) = options.per_country {
            let size = Size { holds: limit.count, fills_in: limit.window };
            let name = format!("country/{}/{}", group.id, phone::country(phone.as_e164()));
            match Box::pin(self.leases.take(&name, size)).await? {
                Ok(permit) => permits.0.push(permit),
                Err(after) => {
                    let message = "the group has texted this country as often as it may for now";
                    let refusal = Refusal::new(Code::RateLimited, message).field("smsPhone");
                    return Ok(Err(refusal.retry_after(after)));
                }
            }
        }
        Ok(Ok(permits))
    }

    /// Waits for this sender's turn; `None` when `patience` is over before that.
    pub async fn slot(&self, sender: &str, patience: Option<Duration>) -> Result<Option<Slot>, Trouble> {
        match &self.paces {
            None => Ok(Some(Slot::unbounded())),
            // Boxed, as most workers set no pace, and each invite would have the room for it in its future.
            Some(paces) => Box::pin(paces.slot(sender, patience)).await,
        }
    }

    /// A text of the group to this number is about to be handed over.
    pub fn texting(&self, group: GroupId, phone: &PhoneNumber) {
        self.prefixes().texting(group, phone.as_e164(), Instant::now());
    }

    fn prefixes(&self) -> std::sync::MutexGuard<'_, Prefixes> {
        self.prefixes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn upkeep(
    pool: PgPool,
    leases: Arc<Leases>,
    prefixes: Arc<Mutex<Prefixes>>,
    stop: CancellationToken,
    pulse: Pulse,
) {
    let mut forget_at = Instant::now() + FORGET_EVERY.mul_f64(rand::random_range(0.0..1.0));
    while stop.run_until_cancelled(tokio::time::sleep(UPKEEP_EVERY)).await.is_some() {
        pulse.step("giving back what was leased and not used");
        leases.give_back_unused().await;
        prefixes.lock().unwrap_or_else(PoisonError::into_inner).look(Instant::now());
        if Instant::now() >= forget_at {
            forget_at = Instant::now() + FORGET_EVERY;
            pulse.step("forgetting full buckets");
            let forgotten = buckets::forget(&pool).await;
            kinds::FORGET_BUCKETS.note(&forgotten);
            if let Err(error) = forgotten {
                tracing::debug!(error = %error.summary(), "full buckets are not deleted yet");
            }
        }
        pulse.idle();
    }
}
