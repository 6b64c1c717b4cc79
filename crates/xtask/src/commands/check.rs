//! `./dev check`. Each check runs even when one before it has failed.

mod chart;
mod english;
mod monitoring;
mod outcome;
mod queries;
mod units;
mod words;

use self::outcome::Outcome;
use crate::{
    cli::{Check, CheckOptions},
    compose::{self, ComposeFile, Project},
    failure::{self, Failure},
    output::say,
    packages, paths, previous_release,
    shell::{self, RunToEnd as _},
};
use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

const CARGO_DENY_VERSION: &str = "0.20.2";
/// All shell scripts, beside those in `scripts`.
const SHELL_SCRIPTS: [&str; 12] = [
    "dev",
    ".ci/run",
    ".ci/engine",
    "examples/run",
    "deploy/postgres/cluster-node",
    "deploy/postgres/cluster-init.sh",
    "deploy/rabbitmq/users",
    "deploy/debian/session-invite-operator",
    "deploy/debian/postinst",
    "deploy/debian/prerm",
    "deploy/debian/postrm",
    "tests/deploying/run",
];

const ALL: [Check; 14] = [
    Check::Format,
    Check::Clippy,
    Check::Docs,
    Check::English,
    Check::Queries,
    Check::Dependencies,
    Check::FuzzLock,
    Check::Scripts,
    Check::Compose,
    Check::Alerts,
    Check::Dashboard,
    Check::Units,
    Check::Chart,
    Check::PreviousRelease,
];

pub(crate) fn run(options: &CheckOptions) -> Result<()> {
    if options.install {
        install()?;
    }
    let mut failed = Vec::new();
    for check in ALL {
        if !options.checks.is_empty() && !options.checks.contains(&check) {
            continue;
        }
        say(format!("— {}", label(check)));
        match perform(check, options) {
            Ok(Outcome::Passed) => {}
            Ok(Outcome::Skipped(why)) => say(format!("  skipped: {why}")),
            Err(error) if failure::is_interrupt(&error) => return Err(error),
            Err(error) => {
                // What a command complains of is on the screen already.
                if error.downcast_ref::<Failure>().is_none() || error.chain().count() > 1 {
                    eprintln!("  {error:#}");
                }
                failed.push(label(check));
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    say("All checks passed");
    Ok(())
}

fn label(check: Check) -> &'static str {
    match check {
        Check::Format => "format",
        Check::Clippy => "clippy",
        Check::Docs => "docs",
        Check::English => "plain English",
        Check::Queries => "committed queries",
        Check::Dependencies => "dependencies",
        Check::FuzzLock => "fuzz/Cargo.lock",
        Check::Scripts => "shell scripts",
        Check::Compose => "the compose files",
        Check::Alerts => "alerts",
        Check::Dashboard => "the dashboard",
        Check::Units => "systemd units",
        Check::Chart => "the Helm chart",
        Check::PreviousRelease => "the previous release",
    }
}

fn perform(check: Check, options: &CheckOptions) -> Result<Outcome> {
    match check {
        Check::Format => format(),
        Check::Clippy => clippy(),
        Check::Docs => docs(),
        Check::English => english::check(),
        Check::Queries => queries::check(),
        Check::Dependencies => dependencies(options.advisories),
        Check::FuzzLock => fuzz_lock().map(|()| Outcome::Passed),
        Check::Scripts => shell_scripts(),
        Check::Compose => compose_files(),
        Check::Alerts => monitoring::alerts(),
        Check::Dashboard => monitoring::dashboard(),
        Check::Units => units::check(),
        Check::Chart => chart::check(options.install),
        Check::PreviousRelease => in_history(),
    }
}

fn install() -> Result<()> {
    if !has_cargo_deny()? {
        say(format!(
            "Installing cargo-deny {CARGO_DENY_VERSION} into .dev/tools (one to two minutes on two cores)"
        ));
        install_tool("cargo-deny", CARGO_DENY_VERSION)?;
    }
    packages::need_command("shellcheck", &["shellcheck"])?;
    monitoring::install()?;
    packages::need_command("systemd-analyze", &["systemd"])
}

/// Installs one of cargo's tools into `.dev/tools`. It is used for seconds, so the time to optimize it would be lost.
pub(crate) fn install_tool(name: &str, version: &str) -> Result<()> {
    cargo(&["install", name, "--version", version, "--locked", "--quiet", "--debug", "--root"])
        .arg(paths::dev()?.join("tools"))
        .run()
        .with_context(|| format!("{name} could not be installed"))
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = shell::command("cargo");
    command.args(arguments);
    command
}

fn passed(mut command: Command) -> Result<Outcome> {
    command.run()?;
    Ok(Outcome::Passed)
}

/// The crate of the fuzzing targets is no member of the workspace: nightly builds it (docs/FUZZING.md).
fn format() -> Result<Outcome> {
    cargo(&["fmt", "--all", "--check"]).run()?;
    passed(cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))
}

fn clippy() -> Result<Outcome> {
    passed(cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
}

fn docs() -> Result<Outcome> {
    let mut command = cargo(&["doc", "--locked", "--workspace", "--no-deps", "--quiet"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    passed(command)
}

fn has_cargo_deny() -> Result<bool> {
    cargo(&["deny", "--version"]).succeeds()
}

fn dependencies(with_advisories: bool) -> Result<Outcome> {
    if !has_cargo_deny()? {
        return Ok(Outcome::Skipped("cargo-deny is not installed (./dev check --install)"));
    }
    cargo(&["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]).run()?;
    // These come from a git repository, and are news: they say nothing of this change.
    if with_advisories {
        cargo(&["deny", "--log-level", "error", "check", "advisories"]).run()?;
    }
    Ok(Outcome::Passed)
}

/// A dependency that is new to the program is new to the fuzzing targets.
pub(crate) fn fuzz_lock() -> Result<()> {
    cargo(&["metadata", "--locked", "--quiet", "--format-version", "1", "--manifest-path", "fuzz/Cargo.toml"])
        .stdin(Stdio::null())
        .read()
        .map(drop)
        .context(
            "fuzz/Cargo.lock is not up to date: cargo update --workspace --manifest-path fuzz/Cargo.toml",
        )
}

fn shell_scripts() -> Result<Outcome> {
    if shell::find("shellcheck").is_none() {
        return Ok(Outcome::Skipped("shellcheck is not installed (./dev check --install)"));
    }
    let scripts = std::fs::read_dir("scripts")?.flatten().map(|entry| entry.path());
    let mut command = shell::command("shellcheck");
    command.args(["--shell", "bash"]).args(SHELL_SCRIPTS).args(scripts);
    passed(command)
}

fn compose_files() -> Result<Outcome> {
    if !compose::is_installed()? {
        return Ok(Outcome::Skipped("no Docker Compose here"));
    }
    for file in [ComposeFile::MainWithPorts, ComposeFile::Cluster] {
        let mut command = Project { file, ..Project::new("check") }.command();
        command.args(["config", "--quiet"]);
        command.run()?;
    }
    Ok(Outcome::Passed)
}

/// `./dev upgrade` builds the previous release, and says the same after half an hour of CI.
fn in_history() -> Result<Outcome> {
    if !previous_release::has_whole_history()? {
        return Ok(Outcome::Skipped("this is not a git checkout with its whole history"));
    }
    previous_release::check_history().map(|()| Outcome::Passed)
}
