//! The soak and the benchmark are programs of their own (crates/soak, crates/bench). Each is built, given the servers'
//! addresses in its environment, and ended before anything else.

use crate::{
    output, paths,
    run::{self, Run},
    shell::{self, RunToEnd as _, variable},
};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Debug,
    Release,
}

/// What follows a look at a driver's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Start,
    /// Its help was printed.
    Nothing,
}

/// What is built by one cargo command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packages {
    /// Also the program, unless SESSION_INVITE_BIN is set. Both have their dependencies with the same features, and cargo
    /// compiles those once.
    DriverAndProgram,
    Driver,
}

/// Builds a driver, and gives its path.
pub(crate) fn build(name: &str, profile: Profile, packages: Packages) -> Result<PathBuf> {
    let mut command = shell::command("cargo");
    command.args(["build", "--locked", "--quiet", "--package", name]);
    if packages == Packages::DriverAndProgram && variable("SESSION_INVITE_BIN").is_none() {
        command.args(["--package", "session-invite"]);
    }
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    command.run().with_context(|| format!("the {name} did not build"))?;
    Ok(paths::target().join(folder).join(name).canonicalize()?)
}

/// Help and wrong options come before anything is started.
pub(crate) fn check(driver: &Path, options: &[String]) -> Result<Next> {
    shell::command(driver).args(options).arg("--check").run()?;
    let wants_help = options.iter().any(|option| option == "--help" || option == "-h");
    Ok(if wants_help { Next::Nothing } else { Next::Start })
}

/// Runs a driver until it ends. It ends before all else that was started: it would start again what is stopped.
pub(crate) fn run(run: &Run, name: &str, words: &[String], environment: &[(String, String)]) -> Result<()> {
    let (process, mut child) = run.start_shown(name, words, environment)?;
    let ended = run::wait_for_end(&mut child);
    process.stop(process.ending_signal());
    shell::as_result(ended?)
}

/// The words of a driver's command.
pub(crate) fn words(driver: &Path, options: &[String]) -> Vec<String> {
    let mut words = vec![driver.display().to_string()];
    words.extend_from_slice(options);
    words
}

/// Says on standard error that a build takes a while, as standard output is the report's.
pub(crate) fn announce_build(what: &str) {
    output::use_standard_error();
    output::say(format!("Building {what} (minutes, the first time)"));
}
