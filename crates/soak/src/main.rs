//! `./dev soak`: random invites from several publishers to several workers, while processes, connections and servers
//! die and the provider lies. At the end each invite is accounted for.
//!
//! `./dev soak` starts it with private servers, and says in its environment where they are.

mod account;
mod agree;
mod ask;
mod book;
mod broker;
mod chaos;
mod events;
mod invite;
mod logs;
mod options;
mod plan;
mod provider;
mod publish;
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
    let options = Options::parse();
    if options.check {
        return ExitCode::SUCCESS;
    }
    let Some(surroundings) = Surroundings::read() else {
        eprintln!("error: the soak needs servers of its own; start it by ./dev soak");
        return ExitCode::from(2);
    };
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
