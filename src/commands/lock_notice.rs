//! Tells an operator what a command waits for, while it waits for a lock of another process.

use crate::{db, output::note, supervise::spawn_work};
use sqlx::PgPool;
use std::time::Duration;

/// A wait that is shorter is not worth a line.
const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// Looks each second until the command ends, and writes to standard error what its statements wait for.
pub(super) fn start(pool: PgPool) {
    spawn_work("notice of locks", async move {
        let mut said = Vec::new();
        loop {
            tokio::time::sleep(LOOKS_EVERY).await;
            // The command itself reports a database that is away.
            let Ok(holders) = db::lock_holders(&pool).await else { continue };
            for holder in holders.iter().filter(|holder| !said.contains(*holder)) {
                note(&format!("this command waits for a lock: {holder}"));
            }
            said = holders;
        }
    });
}
