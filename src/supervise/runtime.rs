//! Who watches the watchers: a thread that needs no runtime.

use super::{keep::keep_up, pulse::problems, task::Task};
use crate::failpoint;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often the thread looks for a sign of the runtime, which gives several between two looks.
const LOOKS_EVERY: Duration = Duration::from_secs(5);
const SIGNS: u32 = 5;
/// After so many looks without a sign the process ends: no invite can be finished, and no probe answered. Looks are
/// counted, and not time: a process that was stopped for an hour has missed none.
const LOOKS_AT_MOST: u32 = 12;

/// Ends the process when its runtime runs no task for a minute, as when each of its threads is blocked.
pub fn watch() -> io::Result<()> {
    let looks_every = failpoint::instead_of(LOOKS_AT_MOST * LOOKS_EVERY) / LOOKS_AT_MOST;
    let signs = Arc::new(AtomicU64::new(0));
    let shown = signs.clone();
    keep_up(Task::Runtime, CancellationToken::new(), move |_| {
        let shown = shown.clone();
        async move {
            loop {
                shown.fetch_add(1, Ordering::Relaxed);
                sleep(looks_every / SIGNS).await;
            }
        }
    });
    let watching = move || {
        let (mut before, mut missed) = (signs.load(Ordering::Relaxed), 0);
        while missed < LOOKS_AT_MOST {
            std::thread::sleep(looks_every);
            let now = signs.load(Ordering::Relaxed);
            missed = if now == before { missed + 1 } else { 0 };
            before = now;
        }
        tracing::error!(
            task = Task::Runtime.name(),
            problems = %problems().join("; "),
            "the runtime has run no task for a minute; the process ends"
        );
        std::process::exit(1);
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the process only, and holds nothing that panics"
    )]
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(watching)?;
    Ok(())
}
