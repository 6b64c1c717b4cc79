//! Network namespaces and interfaces: their processes, and their removal.

use crate::shell::{self, RunToEnd as _};
use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    thread,
    time::{Duration, Instant},
};

const EMPTY_WITHIN: Duration = Duration::from_secs(5);

pub(crate) fn ip(arguments: &[&str]) -> Result<()> {
    shell::command("ip").args(arguments).run()
}

/// The processes within a namespace.
pub(crate) fn processes(namespace: &str) -> Result<Vec<i32>> {
    let pids = shell::command("ip").args(["netns", "pids", namespace]).read()?;
    Ok(pids.lines().filter_map(|line| line.trim().parse().ok()).collect())
}

/// Kills all processes within a namespace, and removes it. It may be gone already.
pub(crate) fn remove_namespace(name: &str) {
    let begun = Instant::now();
    // The list fails when there is no such namespace.
    while let Ok(Ok(pids)) = shell::command("ip").args(["netns", "pids", name]).answers() {
        let pids: Vec<_> = pids.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)).collect();
        if pids.is_empty() || begun.elapsed() > EMPTY_WITHIN {
            break;
        }
        for pid in pids {
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = shell::command("ip").args(["netns", "delete", name]).succeeds();
}

pub(crate) fn remove_link(name: &str) {
    let _ = shell::command("ip").args(["link", "delete", name]).succeeds();
}
