//! `./dev up` and `./dev down`: the same processes as the demo's, in the background, with data that stays.

use super::setup;
use crate::{
    cli::{DownOptions, UpOptions},
    interrupt,
    names::Names,
    output::{say, step},
    paths, program,
    run::{self, Run},
    settings::{self, Settings},
    undo::Extent,
};
use anyhow::Result;
use std::fs;

pub(crate) fn up(options: &UpOptions) -> Result<()> {
    run::check_nothing_is_up()?;
    // What is left of one that crashed goes first.
    run::undo(&paths::up()?, Extent::KeepData);
    let run = Run::begin_lasting()?;
    let names = Names::of_checkout()?;
    let settings = setup::prepare(&run, &names, options.servers.options(), settings::kept_key)?;
    let label = format!("Worker, until {} says 200", settings.readiness_url());
    step(&label, || settings.start_worker(&run))?;
    let label = format!("Gateway, until {}/readyz says 200", settings.public_url());
    step(&label, || settings.start_gateway(&run))?;
    run.complete();
    print_what_is_up(&settings)
}

fn print_what_is_up(settings: &Settings) -> Result<()> {
    let program = program::path()?;
    let program = program.display();
    say("");
    say(format!(
        "Up. Inbox: {}/   gateway: {}/docs   readiness: {}   logs: .dev/up/*.log",
        settings.sandbox_url,
        settings.public_url(),
        settings.readiness_url()
    ));
    say("For your shell:");
    settings.print_exports();
    say("Then, for example (the ports change with each ./dev up: export again after it):");
    say(format!("    {program} groups add 72"));
    say(format!("    {program} send --group 72 --user 12345 --phone 111-000-0000"));
    Ok(())
}

pub(crate) fn down(options: &DownOptions) -> Result<()> {
    let up = paths::up()?;
    let entries = run::entries(&up);
    if entries.is_empty() {
        say("Nothing is up");
        return Ok(());
    }
    if options.wipe {
        run::undo(&up, Extent::All);
        fs::remove_dir_all(up)?;
        let _ = fs::remove_file(settings::kept_key_file()?);
        say("Stopped, and its data removed");
    } else if entries.iter().all(|entry| entry.is_kept) {
        say("Nothing is up; its data stays until ./dev down --wipe");
    } else {
        run::undo(&up, Extent::KeepData);
        say("Stopped; its data stays until ./dev down --wipe");
    }
    Ok(interrupt::check()?)
}
