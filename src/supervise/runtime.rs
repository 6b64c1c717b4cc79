//! A watchdog for the runtime itself: a thread outside of it.

use super::{keep::keep_running, pulse::problems_at, task::Task};
use crate::failpoint;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often the thread checks for a beat of the runtime.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Beats between two checks.
const BEATS: u32 = 5;
/// After so many checks without a beat the process ends: it can finish no invite, and answer no probe. Checks are counted
/// rather than time, since a process that was stopped for an hour has missed none.
const MAX_MISSED_CHECKS: u32 = 12;

/// Ends the process if its runtime runs no task for a minute, for example because each of its threads is blocked.
pub(crate) fn watch() -> io::Result<()> {
    let check_every = failpoint::shortened(MAX_MISSED_CHECKS * CHECK_EVERY) / MAX_MISSED_CHECKS;
    let beats = Arc::new(AtomicU64::new(0));
    let counter = beats.clone();
    keep_running(Task::Runtime, CancellationToken::new(), move |_| {
        let counter = counter.clone();
        async move {
            loop {
                counter.fetch_add(1, Ordering::Relaxed);
                sleep(check_every / BEATS).await;
            }
        }
    });
    let watching = move || {
        let (mut before, mut missed) = (beats.load(Ordering::Relaxed), 0);
        while missed < MAX_MISSED_CHECKS {
            std::thread::sleep(check_every);
            let now = beats.load(Ordering::Relaxed);
            missed = if now == before { missed + 1 } else { 0 };
            before = now;
        }
        // The blocking task may have begun its step up to two checks after the last beat.
        let nearly = Instant::now() + 2 * check_every;
        tracing::error!(
            task = Task::Runtime.name(),
            problems = %problems_at(nearly).join("; "),
            "the runtime has run no task for a minute; the process ends"
        );
        std::process::exit(1);
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the thread ends with the process only, and does not panic"
    )]
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(watching)?;
    Ok(())
}
