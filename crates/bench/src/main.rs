//! `./dev bench`: how fast invites are answered, compared with the least that a worker on this broker can do, and which
//! processes use the machine's CPU meanwhile.
//!
//! `./dev bench` starts this program and passes the servers' addresses in its environment. The program starts itself again
//! as the provider, as the floor and as a crowd of connections, so that the CPU of each can be read.

mod broker;
mod crowd;
mod database;
mod documents;
mod figure_table;
mod figures;
mod floor;
mod gateway;
mod gateway_report;
mod http_client;
mod load_result;
mod machine;
mod measure;
mod options;
mod plan;
mod plot;
mod processes;
mod provider;
mod queue_client;
mod report;
mod response;
mod run;
mod scenario;
#[cfg(test)]
mod tests;
mod usage;

use clap::Parser;
use options::{BenchEnvironment, Options, Role};
use std::process::ExitCode;
use test_support::driver;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let options = Options::parse();
    match &options.role {
        Some(Role::Floor { amqp_url, queue }) => runtime.block_on(floor::run(amqp_url, queue)),
        Some(Role::Provider { latency_ms }) => runtime.block_on(provider::run(*latency_ms)),
        Some(Role::Crowd { gateway, idle, slow }) => runtime.block_on(crowd::run(*gateway, *idle, *slow)),
        None if options.check => ExitCode::SUCCESS,
        None => {
            let Some(environment) = BenchEnvironment::read() else {
                eprintln!("error: the benchmark needs servers and a release build; start it by ./dev bench");
                return ExitCode::from(2);
            };
            runtime.block_on(run_until_orphaned(options, environment))
        }
    }
}

/// When `./dev bench` has ended, this program ends too, with the processes that it started.
async fn run_until_orphaned(options: Options, environment: BenchEnvironment) -> ExitCode {
    tokio::select! {
        code = run::run(options, environment) => code,
        () = driver::orphaned() => ExitCode::from(129),
    }
}
