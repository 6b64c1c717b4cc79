//! Python's packages, each set in a virtual environment of its own under `.dev/tools`.

use crate::{
    packages, paths,
    shell::{self, RunToEnd as _},
};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The file with the versions that are installed.
const NOTE: &str = "versions";

fn folder(set: &str) -> Result<PathBuf> {
    Ok(paths::dev()?.join("tools").join(set))
}

pub(crate) fn is_installed(set: &str, versions: &[&str]) -> Result<bool> {
    let installed = fs::read_to_string(folder(set)?.join(NOTE));
    Ok(installed.is_ok_and(|installed| installed == versions.join(" ")))
}

/// The folder of a set's programs. The set is installed once for these versions, such as `schemathesis==4.32.5`.
pub(crate) fn programs(set: &str, versions: &[&str]) -> Result<PathBuf> {
    let folder = folder(set)?;
    let programs = folder.join("bin");
    if is_installed(set, versions)? {
        return Ok(programs);
    }
    packages::need_command("python3", &["python3", "python3-venv"])?;
    let _ = fs::remove_dir_all(&folder);
    if !make_environment(&folder).succeeds()? {
        packages::install(&["python3-venv"])?;
        make_environment(&folder).run().context("the virtual environment cannot be made")?;
    }
    shell::command(programs.join("pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(versions)
        .run()
        .with_context(|| format!("{set} could not be installed"))?;
    fs::write(folder.join(NOTE), versions.join(" "))?;
    Ok(programs)
}

fn make_environment(folder: &Path) -> Command {
    let mut command = shell::command("python3");
    command.args(["-m", "venv"]).arg(folder);
    command
}
