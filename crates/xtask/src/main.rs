//! What `./dev` runs: a command line, and a file for each command.
//!
//! It starts what a command needs and writes down each thing that it starts or makes (`run.rs`, `undo.rs`). Whatever
//! ends the command, that is stopped and removed by its own name or process id.

mod cli;
mod cluster;
mod commands;
mod compose;
mod compose_servers;
mod driver;
mod failure;
mod http;
mod installation;
mod interrupt;
mod names;
mod netns;
mod output;
mod packages;
mod paths;
mod ports;
mod postgres;
mod previous_release;
mod proc;
mod process;
mod program;
mod psql;
mod python;
mod rabbitmq;
mod random;
mod run;
mod series;
mod server;
mod services;
mod settings;
mod shell;
mod undo;

use std::process::ExitCode;

fn main() -> ExitCode {
    match run_command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

fn run_command() -> anyhow::Result<()> {
    interrupt::listen()?;
    paths::enter_root()?;
    match cli::parse(std::env::args().skip(1).collect())? {
        Some(command) => commands::run(command),
        None => Ok(()),
    }
}
