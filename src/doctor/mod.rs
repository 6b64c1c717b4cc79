//! What the worker needs, looked at without changing anything: no migration, no declaration, no message, no text.

mod broker;
mod database;
mod finding;
mod outside;

pub use finding::{Finding, Verdict};

use crate::config::WorkerArgs;

/// All checks, in the order in which they are told. Servers are asked at the same time, and each has a few seconds.
pub async fn examine(args: &WorkerArgs) -> Vec<Finding> {
    let mut findings = configuration(args);
    let (database, broker, outside) =
        tokio::join!(database::examine(args), broker::examine(args), outside::examine(args));
    findings.extend(database.into_iter().chain(broker).chain(outside));
    findings
}

/// Every fault at once, as at the worker's start.
fn configuration(args: &WorkerArgs) -> Vec<Finding> {
    match args.check() {
        Ok(_) => vec![Finding::ok("configuration", "complete, as far as it can be told by itself")],
        Err(faults) => {
            let told =
                |fault: &String| Finding::failed("configuration", fault, "see session-invite worker --help");
            faults.lines().iter().map(told).collect()
        }
    }
}
