//! `./dev bench` and `./dev profile`: the release build under load; crates/bench is the driver. Standard output is its
//! report's alone.

use crate::{
    cli::BenchOptions,
    driver::{self, Next, Packages, Profile},
    names::Names,
    paths, postgres, program, rabbitmq,
    run::Run,
    services::{self, Services},
    shell::{self, RunToEnd as _},
};
use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::{Path, PathBuf};

pub(crate) fn run(options: &BenchOptions) -> Result<()> {
    driver::announce_build("the release and its benchmark");
    let driver = driver::build("bench", Profile::Release, Packages::DriverAndProgram)?;
    let program = if program::is_given()? { program::path()? } else { build_release()? };
    measure(options, &driver, &program)
}

/// The same build with frame pointers and symbols, under perf. In a directory of its own, since other flags compile
/// everything again.
pub(crate) fn profile(mut options: BenchOptions) -> Result<()> {
    if shell::find("perf").is_none() {
        bail!("perf is not installed (Debian and Ubuntu: linux-perf, linux-tools-generic)");
    }
    driver::announce_build("the program with frame pointers and symbols");
    let built = paths::dev()?.join("profile");
    shell::command("cargo")
        .args(["build", "--locked", "--quiet", "--release"])
        .env("CARGO_TARGET_DIR", &built)
        .env("RUSTFLAGS", "-C force-frame-pointers=yes")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only")
        .run()
        .context("the build failed")?;
    let driver = driver::build("bench", Profile::Release, Packages::Driver)?;
    options.options.splice(0..0, ["--only", "throughput", "--profile"].map(str::to_owned));
    measure(&options, &driver, &built.join("release/session-invite"))
}

fn build_release() -> Result<PathBuf> {
    let built = shell::command("cargo").args(["build", "--locked", "--quiet", "--release"]).run();
    built.context("the build failed")?;
    Ok(paths::target().join("release/session-invite").canonicalize()?)
}

fn measure(options: &BenchOptions, driver: &Path, program: &Path) -> Result<()> {
    if driver::check(driver, &options.options)? == Next::Nothing {
        return Ok(());
    }
    let run = Run::begin()?;
    let services = services::find(&run, options.servers)?;
    start_driver(&run, &services, &options.options, driver, program)
}

/// The release build under load on these servers.
pub(crate) fn measure_on(run: &Run, services: &Services, options: &[String]) -> Result<()> {
    let driver = driver::build("bench", Profile::Release, Packages::DriverAndProgram)?;
    let program = if program::is_given()? { program::path()? } else { build_release()? };
    start_driver(run, services, options, &driver, &program)
}

fn start_driver(
    run: &Run,
    services: &Services,
    options: &[String],
    driver: &Path,
    program: &Path,
) -> Result<()> {
    let names = Names::of_run("bench")?;
    let database = postgres::make_database(run, &services.postgres, &names.database)?;
    rabbitmq::note_queues(run, &services.rabbitmq, &names.queue_prefix)?;
    raise_limit_of_files()?;
    let mut environment = services.environment();
    environment.extend(
        [
            ("DATABASE_URL", database),
            ("QUEUE_PREFIX", names.queue_prefix),
            ("SESSION_INVITE_BIN", program.display().to_string()),
            ("BENCH_RUN_DIR", run.directory.display().to_string()),
            ("BENCH_REPORTS", paths::dev()?.display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    driver::run(run, "bench", &driver::words(driver, options), &environment)
}

/// Each request that waits over HTTP has a connection.
fn raise_limit_of_files() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
