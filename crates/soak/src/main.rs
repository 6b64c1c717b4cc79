//! `./dev soak`: random invites from several publishers to several workers, while processes, connections and servers
//! fail and the provider injects faults. At the end each invite is accounted for.
//!
//! `./dev soak` starts this program with private servers, and passes their addresses in its environment.

mod audit;
mod audit_result;
mod broker;
mod chaos;
mod chaos_cluster;
mod checks;
mod cluster;
mod cluster_plan;
mod gateway_client;
mod invite;
mod journal;
mod logs;
mod nodes;
mod options;
mod plan;
mod processes;
mod provider;
mod publisher;
mod report;
mod run;
mod servers;
mod session_events;
mod setup;
mod tunnel;
mod upgrade;

use clap::Parser;
use options::{Options, SoakEnvironment};
use processes::ProcessSlots;
use std::process::ExitCode;
use test_support::driver;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let options = Options::parse();
    if options.check {
        return ExitCode::SUCCESS;
    }
    let Some(environment) = SoakEnvironment::read() else {
        eprintln!("error: the soak needs servers of its own; start it by ./dev soak");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run_until_signal(options, environment))
}

/// A signal ends the soak early, and its processes with it. `./dev soak` ends the servers.
async fn run_until_signal(options: Options, environment: SoakEnvironment) -> ExitCode {
    let mut interrupt = signal(SignalKind::interrupt()).expect("a handler for SIGINT");
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM");
    let slots = ProcessSlots::default();
    let code = tokio::select! {
        code = run::run(options, environment, &slots) => code,
        _ = interrupt.recv() => ExitCode::from(130),
        _ = terminate.recv() => ExitCode::from(143),
        () = driver::orphaned() => ExitCode::from(129),
    };
    for slot in slots.all() {
        slot.abandon();
    }
    code
}
