//! Parse, start the logs, dispatch, exit code.

use clap::CommandFactory;
use session_invite::{
    cli::{Cli, Command},
    commands::{
        addresses, completions, dead, doctor, gateway, groups, migrate, optouts, ready, secrets, send,
        sessions, sms_sandbox, tokens, topology, worker,
    },
    config::{DotEnv, Faults, take_libpq_variables},
    telemetry,
};
use std::{num::NonZero, process::ExitCode};
use tokio::runtime::{Builder, Runtime};

/// An invite is many small allocations, and this makes less of its time of them than the system's (docs/PERFORMANCE.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if Cli::answer_without_settings() {
        return ExitCode::SUCCESS;
    }
    let file = match DotEnv::read() {
        Ok(file) => file,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    file.apply();
    take_libpq_variables();
    let cli = Cli::read();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            return ExitCode::from(if error.kind() == std::io::ErrorKind::InvalidInput { 2 } else { 1 });
        }
    };
    let ended = runtime.block_on(run(cli, &file));
    // Not taken down: the AMQP client's threads would panic over tasks that are cancelled. The process ends anyway.
    std::mem::forget(runtime);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let wrong_usage = error.is::<Faults>() || sms_sandbox::is_wrong_usage(&error);
            // Wrong usage, or what was asked for failed.
            ExitCode::from(if wrong_usage { 2 } else { 1 })
        }
    }
}

/// Half as many threads as there are cores, unless `TOKIO_WORKER_THREADS` says otherwise: the broker's client has threads
/// of its own, and whatever else serves invites mostly runs on the same machine.
fn runtime() -> std::io::Result<Runtime> {
    let threads = match std::env::var_os("TOKIO_WORKER_THREADS").filter(|text| !text.is_empty()) {
        Some(text) => {
            let threads =
                text.to_str().and_then(|text| text.parse().ok()).filter(|n| (1..=1_024).contains(n));
            let what = "TOKIO_WORKER_THREADS: must be a whole number from 1 to 1024";
            threads.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, what))?
        }
        None => std::thread::available_parallelism().map_or(1, NonZero::get).div_ceil(2),
    };
    Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

async fn run(cli: Cli, file: &DotEnv) -> anyhow::Result<()> {
    let quiet = !matches!(cli.command, Command::Worker(_) | Command::Gateway(_));
    telemetry::start(&cli.log, if quiet { "warn" } else { "info" })?;
    if file.is_public {
        tracing::warn!("everybody on this machine may read .env, and the secrets in it: chmod 600 .env");
    }
    // The one crypto provider that rustls is built with here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli.command {
        Command::Worker(args) => Box::pin(worker::run(&args)).await,
        Command::Gateway(args) => Box::pin(gateway::run(&args)).await,
        Command::Migrate(args) => migrate::run(&args).await,
        Command::Groups(all) => groups::run(all.args, &all.database, &all.secrets).await,
        Command::Addresses(all) => addresses::run(all.args, &all.database).await,
        Command::Tokens(all) => tokens::run(all.args, &all.database, &all.secrets).await,
        Command::Send(args) => send::run(args).await,
        Command::Sessions(args) => sessions::run(args).await,
        Command::Dead(args) => Box::pin(dead::run(args)).await,
        Command::Optouts(all) => optouts::run(all.args, &all.database, &all.secrets).await,
        Command::Secrets(all) => secrets::run(all.args, &all.database, &all.secrets).await,
        Command::Doctor(args) => Box::pin(doctor::run(&args)).await,
        Command::SmsSandbox(args) => sms_sandbox::run(args).await,
        Command::Completions(args) => {
            completions::run(&args, Cli::command());
            Ok(())
        }
        Command::Topology(args) => topology::run(args).await,
        Command::Ready(args) => ready::run(&args).await,
    }
}
