//! The program: it reads the command line, starts the log, runs the command, and chooses the exit code.

use crate::{
    cli::{Cli, Command},
    commands::{
        WrongUsage, addresses, audit, completions, config, dead, doctor, gateway, groups, migrate, optouts,
        ready, reconcile, retention, secrets, send, sessions, sms_sandbox, tokens, topology, trace, worker,
    },
    config::{DotEnv, Faults, misspelt_settings, read_secret_files, take_libpq_variables},
    telemetry,
};
use clap::CommandFactory;
use std::{num::NonZero, process::ExitCode};
use tokio::runtime::{Builder, Runtime};

/// Runs the command that the arguments name.
///
/// Exit codes: 0 for success, 1 when the command failed, 2 for wrong usage or settings.
pub fn main() -> ExitCode {
    if let Some(answered) = Cli::answer_without_settings() {
        return exit_code(answered, telemetry::is_json(None));
    }
    let mut file = match DotEnv::read() {
        Ok(file) => file,
        Err(error) => {
            telemetry::fatal(telemetry::is_json(None), &error);
            return ExitCode::from(2);
        }
    };
    file.apply();
    read_secret_files();
    take_libpq_variables();
    let cli = Cli::read();
    let json = telemetry::is_json(Some(&cli.log));
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            telemetry::fatal(json, &format_args!("the runtime does not start: {error}"));
            return ExitCode::from(if error.kind() == std::io::ErrorKind::InvalidInput { 2 } else { 1 });
        }
    };
    let ended = runtime.block_on(run(cli, &file));
    // The runtime is not shut down: the AMQP client's threads would panic over cancelled tasks. The process ends anyway.
    std::mem::forget(runtime);
    exit_code(ended, json)
}

/// The exit code of a command, whose error is written here.
fn exit_code(ended: anyhow::Result<()>, json: bool) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::fatal(json, &error);
            let wrong_usage =
                error.is::<Faults>() || error.is::<WrongUsage>() || sms_sandbox::is_wrong_usage(&error);
            ExitCode::from(if wrong_usage { 2 } else { 1 })
        }
    }
}

/// A runtime with `TOKIO_WORKER_THREADS` threads, by default half as many as there are cores: the AMQP client has threads of
/// its own, and the other processes that serve invites mostly run on the same machine.
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
        tracing::warn!("every user of this machine may read .env, and the secrets in it: chmod 600 .env");
    }
    let misspelt = misspelt_settings(&Cli::setting_names());
    for found in misspelt.iter().filter(|_| !quiet) {
        tracing::warn!("{found}");
    }
    // rustls is built with this crypto provider only.
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
        Command::Trace(args) => Box::pin(trace::run(*args)).await,
        Command::Dead(args) => Box::pin(dead::run(args)).await,
        Command::Optouts(all) => optouts::run(all.args, &all.database, &all.secrets).await,
        Command::Secrets(all) => secrets::run(all.args, &all.database, &all.secrets).await,
        Command::Reconcile(args) => Box::pin(reconcile::run(&args)).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Doctor(args) => Box::pin(doctor::run(&args, &misspelt)).await,
        Command::SmsSandbox(args) => sms_sandbox::run(args).await,
        Command::Completions(args) => completions::run(&args, Cli::command()),
        Command::Topology(args) => topology::run(args).await,
        Command::Ready(args) => ready::run(&args).await,
        Command::Config(args) => config::run(&args, &Cli::command(), file),
        Command::Retention(args) => retention::run(&args).await,
    }
}
