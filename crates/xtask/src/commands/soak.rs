//! `./dev soak`: private servers, which the soak's driver (crates/soak) ends and starts again by `change_service`.

use crate::{
    cli::{ServiceChange, SoakOptions, SoakServiceOptions},
    cluster::{self, Cluster},
    driver::{self, Next, Packages, Profile},
    failure::wrong_usage,
    paths, postgres, program,
    run::Run,
    server::{Server, Source},
    services::{self, Series, ServiceOptions},
};
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::env;

const DATABASE: &str = "session_invite_soak";

pub(crate) fn run(options: &SoakOptions) -> Result<()> {
    run_with(options, || Ok(Vec::new()))
}

/// The same with further options, which are made once the given ones are known to be right.
pub(crate) fn run_with(options: &SoakOptions, further: impl FnOnce() -> Result<Vec<String>>) -> Result<()> {
    program::build()?;
    let driver = driver::build("soak", Profile::Debug, Packages::DriverAndProgram)?;
    let mut words = options.options.clone();
    if options.cluster {
        words.insert(0, "--cluster".to_owned());
    }
    if driver::check(&driver, &words)? == Next::Nothing {
        return Ok(());
    }
    words.extend(further()?);
    let run = Run::begin()?;
    let mut environment = if options.cluster {
        start_cluster(&run, options.series)?
    } else {
        start_servers(&run, options.series)?
    };
    let series = match options.series {
        Series::Old => "old",
        Series::New => "new",
    };
    environment.extend(
        [
            ("SESSION_INVITE_BIN", program::path()?.display().to_string()),
            ("SOAK_RUN_DIR", run.directory.display().to_string()),
            ("SOAK_REPORTS", paths::dev()?.display().to_string()),
            ("SOAK_SERIES", series.to_owned()),
            ("SOAK_XTASK", env::current_exe()?.display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    driver::run(&run, "soak", &driver::words(&driver, &words), &environment)
}

fn start_servers(run: &Run, series: Series) -> Result<Vec<(String, String)>> {
    let servers = ServiceOptions { services: Some(Source::Private), series };
    let services = services::find(run, servers)?;
    let database = postgres::make_database(run, &services.postgres, DATABASE)?;
    let mut environment = services.environment();
    environment.push(("DATABASE_URL".to_owned(), database));
    Ok(environment)
}

fn start_cluster(run: &Run, series: Series) -> Result<Vec<(String, String)>> {
    let installation = services::installation(run, Some(Source::Private), series)?;
    let cluster = Cluster::start(run, &installation)?;
    let primary = Server { url: cluster.primary_url.clone(), source: Source::Private };
    let database = postgres::make_database(run, &primary, DATABASE)?;
    Ok([
        ("DATABASE_URL", cluster.database_url(&database)),
        ("AMQP_URL", cluster.amqp_url.clone()),
        ("SOAK_CLUSTER", cluster.description()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into())
}

/// Ends a server that `./dev soak` started, or starts it again just as it was. The soak waits for it to be ready.
pub(crate) fn change_service(options: &SoakServiceOptions) -> Result<()> {
    let directory =
        env::var_os("SOAK_RUN_DIR").context("SOAK_RUN_DIR is not set: only ./dev soak uses this")?;
    let run = Run::of_parent(directory.into());
    let name = options.name.as_str();
    let process = run.process(name).ok_or_else(|| wrong_usage(format!("no server {name} was started")))?;
    match options.what {
        ServiceChange::Stop => process.stop(process.ending_signal()),
        // PostgreSQL's QUIT is a crash that its backends follow at once: no checkpoint, and recovery at the start.
        ServiceChange::Crash if name == "postgres" => process.stop(Signal::QUIT),
        ServiceChange::Crash => {
            process.stop(Signal::KILL);
            kill_all(&run, name)?;
        }
        ServiceChange::Start => {
            run.start_again(name)?;
        }
        ServiceChange::Rejoin => {
            cluster::copy(&run, name)?;
            run.start_again(name)?;
        }
    }
    Ok(())
}

/// PostgreSQL's processes each lead a session of their own, so they outlive a killed parent for a moment. A node of a cluster
/// dies as a whole. epmd stays: it is not started again.
fn kill_all(run: &Run, name: &str) -> Result<()> {
    let epmd = run.process(&format!("{name}-epmd")).map(|process| process.pid);
    for pid in cluster::processes(run, name)? {
        if Some(pid) != epmd
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}
