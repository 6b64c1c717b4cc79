//! `./dev soak`: random invites from several publishers to several workers, while processes, connections and servers
//! die and the provider lies. At the end each invite is accounted for.
//!
//! A program of its own, which `./dev soak` starts with private servers; it returns at once when something else does.

mod account;
mod agree;
mod ask;
mod book;
mod broker;
mod chaos;
#[path = "../it/support/credentials.rs"]
mod credentials;
mod events;
mod invite;
mod options;
mod plan;
mod process;
mod provider;
mod publish;
#[expect(dead_code, reason = "tests/it uses the rest")]
#[path = "../it/support/raw.rs"]
mod raw;
mod report;
mod servers;
mod setup;
mod stage;
mod tunnel;
mod workers;

use clap::Parser;
use options::{Options, Surroundings};
use std::{os::unix::process::parent_id, process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use workers::Places;

fn main() -> ExitCode {
    // nextest asks every target for its tests; this one has none.
    if std::env::var_os("SOAK_RUN_DIR").is_none() {
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    if options.check {
        return ExitCode::SUCCESS;
    }
    let surroundings = Surroundings::read().expect("./dev soak tells where the servers are");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(until_signal(options, surroundings))
}

/// A signal ends it early, and the workers with it. The servers are for `./dev soak` to end.
async fn until_signal(options: Options, surroundings: Surroundings) -> ExitCode {
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be listened to");
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    let workers = Places::default();
    let code = tokio::select! {
        code = stage::run(options, surroundings, &workers) => code,
        _ = interrupt.recv() => ExitCode::from(130),
        _ = terminate.recv() => ExitCode::from(143),
        () = orphaned() => ExitCode::from(129),
    };
    for place in workers.all() {
        place.abandon();
    }
    code
}

/// Ends when `./dev soak` is gone.
async fn orphaned() {
    let parent = parent_id();
    while parent_id() == parent {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
