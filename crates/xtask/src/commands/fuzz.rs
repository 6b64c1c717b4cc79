//! `./dev fuzz`: cargo-fuzz's targets (docs/FUZZING.md), each for a while, from the committed seeds.

use super::check;
use crate::{
    cli::FuzzOptions,
    failure::wrong_usage,
    interrupt,
    output::{say, show_end},
    paths,
    shell::{self, RunToEnd as _},
};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    collections::VecDeque,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::available_parallelism,
};

const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// There is no unsafe code for a sanitizer to watch, and it would halve the speed. One unit for each crate, cargo-fuzz's
/// own choice, takes longer to build than the runs gain by it.
const BUILD: [&str; 4] = ["--sanitizer", "none", "--codegen-units", "16"];

pub(crate) fn run(options: &FuzzOptions) -> Result<()> {
    let targets = choose(&options.targets, &install()?)?;
    // cargo fuzz takes no --locked.
    check::fuzz_lock()?;
    say("Building the targets");
    cargo_fuzz("build").args(BUILD).run().context("the targets do not build")?;
    let failed = run_all(&targets, options.seconds)?;
    if !failed.is_empty() {
        bail!("failed: {}; what made it fail is in fuzz/artifacts", failed.join(" "));
    }
    say(format!("{} targets, {} s each: nothing found", targets.len(), options.seconds));
    Ok(())
}

fn cargo_fuzz(what: &str) -> Command {
    let mut command = shell::command("cargo");
    command.args(["+nightly", "fuzz", what]);
    command
}

/// Installs cargo-fuzz if it is missing. Gives the names of all targets.
fn install() -> Result<Vec<String>> {
    if !shell::command("cargo").args(["+nightly", "--version"]).succeeds()? {
        bail!(
            "fuzzing needs Rust's nightly toolchain, and there is none: \
             rustup toolchain install nightly --profile minimal"
        );
    }
    if !shell::command("cargo").args(["fuzz", "--version"]).succeeds()? {
        say(format!("Installing cargo-fuzz {CARGO_FUZZ_VERSION} into .dev/tools"));
        check::install_tool("cargo-fuzz", CARGO_FUZZ_VERSION)?;
    }
    Ok(cargo_fuzz("list").read()?.lines().map(str::to_owned).collect())
}

fn choose(wanted: &[String], known: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = wanted.iter().find(|target| !known.contains(target)) {
        return Err(wrong_usage(format!("there is no target \"{unknown}\"; there are {}", known.join(" "))));
    }
    Ok(if wanted.is_empty() { known } else { wanted }.to_vec())
}

struct Target {
    name: String,
    /// In a process group of its own: cargo's child has to end with it.
    child: Child,
}

impl Drop for Target {
    fn drop(&mut self) {
        // The id of a process that has ended may be another one's by now.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}

/// Runs as many at a time as there are processors. Gives the names of those that failed.
fn run_all(targets: &[String], seconds: u64) -> Result<Vec<String>> {
    let mut waiting: VecDeque<_> = targets.iter().collect();
    let (mut running, mut failed): (Vec<Target>, _) = (Vec::new(), Vec::new());
    let places = available_parallelism()?.get();
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < places
            && let Some(name) = waiting.pop_front()
        {
            running.push(start(name, seconds)?);
        }
        let mut still_running = Vec::new();
        for mut target in running {
            match target.child.try_wait()? {
                None => still_running.push(target),
                Some(status) if status.success() => say(summary(&target.name)?),
                Some(_) => {
                    show_end(&log(&target.name)?, 40);
                    failed.push(target.name.clone());
                }
            }
        }
        running = still_running;
        interrupt::pause()?;
    }
    Ok(failed)
}

/// What it learns goes to fuzz/corpus, which is not committed. A failure's output ends with the input.
fn start(name: &str, seconds: u64) -> Result<Target> {
    let corpus = format!("fuzz/corpus/{name}");
    fs::create_dir_all(paths::dev()?)?;
    fs::create_dir_all(&corpus)?;
    let log = File::create(log(name)?)?;
    let child = cargo_fuzz("run")
        .args(BUILD)
        .args([
            name,
            &corpus,
            &format!("fuzz/seeds/{name}"),
            "--",
            &format!("-dict=fuzz/dictionaries/{name}"),
        ])
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    Ok(Target { name: name.to_owned(), child })
}

fn log(name: &str) -> Result<PathBuf> {
    Ok(paths::dev()?.join(format!("fuzz-{name}.log")))
}

fn summary(name: &str) -> Result<String> {
    let log = fs::read(log(name)?)?;
    let (inputs, places) = progress(&String::from_utf8_lossy(&log)).unwrap_or_default();
    Ok(format!("{name}: {inputs} inputs, {places} places of the code reached"))
}

/// The numbers of the last line of progress, which begins so: #52133 DONE cov: 915 ft: 3021
fn progress(log: &str) -> Option<(u64, u64)> {
    let done = log.lines().find_map(|line| line.strip_prefix('#')?.split_once("\tDONE"))?;
    let places = done.1.split_once("cov: ")?.1.split(' ').next()?;
    Some((done.0.parse().ok()?, places.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_last_line_of_progress() {
        let log = "#2\tINITED cov: 3 ft: 4\n#52133\tDONE   cov: 915 ft: 3021 corp: 1\nstat: 1\n";
        assert_eq!(progress(log), Some((52133, 915)));
        assert_eq!(progress("no"), None);
    }

    #[test]
    fn all_targets_are_chosen_unless_some_are_named() {
        let known = ["gkey", "phone"].map(str::to_owned);
        assert_eq!(choose(&[], &known).unwrap(), known);
        assert_eq!(choose(&known[1..], &known).unwrap(), known[1..]);
        assert!(choose(&["fax".to_owned()], &known).unwrap_err().to_string().contains("gkey phone"));
    }
}
