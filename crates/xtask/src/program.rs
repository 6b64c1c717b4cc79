//! The program itself: where it is, how it is built, and the words that run it.

use crate::{
    paths,
    shell::{self, RunToEnd as _, variable},
};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The program's absolute path, whether it is built or not.
pub(crate) fn path() -> Result<PathBuf> {
    let own = variable("SESSION_INVITE_BIN").map(PathBuf::from);
    let path = own.unwrap_or_else(|| paths::target().join("debug/session-invite"));
    Ok(path.canonicalize().or_else(|_| std::path::absolute(path))?)
}

/// Builds with the profile that the tests share, so that what either has compiled serves both.
pub(crate) fn build() -> Result<()> {
    if !is_given()? {
        shell::command("cargo").args(["build", "--locked", "--quiet"]).run().context("the build failed")?;
    }
    Ok(())
}

/// Whether SESSION_INVITE_BIN is set. Fails if its value is not an executable file.
pub(crate) fn is_given() -> Result<bool> {
    let Some(given) = variable("SESSION_INVITE_BIN") else { return Ok(false) };
    if !shell::is_executable(Path::new(&given)) {
        bail!("SESSION_INVITE_BIN is not an executable file: {given}");
    }
    Ok(true)
}

/// The words that run the program from another directory, so that a developer's .env does not mix in a second sender or
/// somebody's real public address.
pub(crate) fn words(arguments: &[&str]) -> Result<Vec<String>> {
    let mut words = ["env", "--chdir=/"].map(str::to_owned).to_vec();
    words.push(path()?.display().to_string());
    words.extend(arguments.iter().map(|word| (*word).to_owned()));
    Ok(words)
}

/// Deletes every queue and exchange under a prefix.
pub(crate) fn delete_queues(broker: &str, prefix: &str) {
    let Ok(program) = path() else { return };
    let mut command = shell::command(program);
    command.args(["topology", "delete"]).env("AMQP_URL", broker).env("QUEUE_PREFIX", prefix).current_dir("/");
    // What can not be deleted has gone, or its broker has.
    let _ = command.succeeds_within(Duration::from_secs(20));
}
