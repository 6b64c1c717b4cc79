//! What Linux shows of processes in `/proc`.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;

/// A process id is reused, so it counts only with the start time that the process had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub pid: i32,
    /// In clock ticks since boot.
    pub start: u64,
}

impl ProcessId {
    pub(crate) fn is_running(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start == self.start && stat.state != "Z")
    }

    /// Whether the process got the signal.
    pub(crate) fn signal(self, signal: Signal) -> bool {
        self.is_running() && Pid::from_raw(self.pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
    }
}

pub(crate) fn start_of(pid: i32) -> Option<u64> {
    Some(stat(pid)?.start)
}

/// The processes that a process has started, and those that these have started.
pub(crate) fn descendants(pid: i32) -> Vec<ProcessId> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: Vec<(i32, Stat)> = pids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let mut parents = vec![pid];
    let mut found = Vec::new();
    while let Some(parent) = parents.pop() {
        for (pid, stat) in all.iter().filter(|(_, stat)| stat.parent == parent) {
            parents.push(*pid);
            found.push(ProcessId { pid: *pid, start: stat.start });
        }
    }
    found
}

struct Stat {
    state: String,
    parent: i32,
    start: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    read_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn read_stat(line: &str) -> Option<Stat> {
    // The command's name, in parentheses, may hold spaces.
    let fields: Vec<_> = line.rsplit_once(") ")?.1.split(' ').collect();
    Some(Stat {
        state: (*fields.first()?).to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_hide_the_fields() {
        let rest: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let stat = read_stat(&format!("17 (a) b) S {}", rest.join(" "))).unwrap();
        assert_eq!((stat.state.as_str(), stat.parent, stat.start), ("S", 4, 22));
        assert!(read_stat("").is_none());
    }
}
