//! The distribution's packages, installed only when something that we need is missing.

use crate::{
    output::{say, show_end},
    paths,
    shell::{self, RunToEnd as _},
};
use anyhow::{Context, Result, bail};
use std::{fs, path::Path};

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The words before a command that only root may run.
pub(crate) fn as_root() -> Vec<String> {
    // A process in the background has no terminal to type a password on.
    let words: &[&str] = if is_root() { &[] } else { &["sudo", "--non-interactive"] };
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The whole command.
pub(crate) fn as_root_do<const N: usize>(words: [&str; N]) -> Vec<String> {
    let mut all = as_root();
    all.extend(words.map(str::to_owned));
    all
}

pub(crate) fn need_root(what: &str) -> Result<()> {
    let can =
        is_root() || shell::find("sudo").is_some() && shell::of_words(&as_root_do(["true"])).succeeds()?;
    if !can {
        bail!("{what} needs root, or a sudo that requires no password");
    }
    Ok(())
}

/// Installs packages unless the command is there.
pub(crate) fn need_command(command: &str, packages: &[&str]) -> Result<()> {
    if shell::find(command).is_some() { Ok(()) } else { install(packages) }
}

/// Installs packages unless the file is there.
pub(crate) fn need_file(file: &Path, packages: &[&str]) -> Result<()> {
    if file.exists() { Ok(()) } else { install(packages) }
}

/// Installs packages of npm, with exact versions, into a folder of `.dev/tools`.
pub(crate) fn install_from_npm(folder: &Path, packages: &[&str]) -> Result<()> {
    shell::command("npm")
        .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
        .arg(folder)
        .args(packages)
        .run()
        .with_context(|| format!("npm could not install {}", packages.join(" ")))
}

pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if shell::find("apt-get").is_none() {
        bail!("{names} missing: install it; there is no apt-get here to do that with");
    }
    if !is_root() && shell::find("sudo").is_none() {
        bail!("{names} missing: install it, or run this as root or with sudo");
    }
    say(format!("Installing {names} (apt-get)"));
    let log = paths::dev()?.join("apt.log");
    fs::create_dir_all(paths::dev()?)?;
    // Here sudo may ask for a password.
    let before: &[&str] = if is_root() { &[] } else { &["sudo"] };
    let words = [before, &["bash", "scripts/install-quietly"], packages].concat();
    // A kill in the middle of it would leave the policy that keeps services from starting.
    if !shell::of_words(&words).logs_to_unkilled(&log)? {
        show_end(&log, 5);
        bail!("apt-get could not install {names} (all of it: {})", log.display());
    }
    Ok(())
}
