//! Processes that outlive the command which started them. Each leads a session of its own, which ends with it.

use crate::{
    output::say,
    packages,
    proc::{self, ProcessId},
    shell::{self, RunToEnd as _},
};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    thread,
    time::{Duration, Instant},
};

/// How long a process may take to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
const DIES_WITHIN: Duration = Duration::from_secs(2);

/// A process of the undo log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub name: String,
    pub pid: i32,
    /// In clock ticks since boot.
    pub start: u64,
}

impl Process {
    fn id(&self) -> ProcessId {
        ProcessId { pid: self.pid, start: self.start }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.id().is_running()
    }

    /// Ends its whole session; kills what does not end.
    pub(crate) fn stop(&self, signal: Signal) {
        if !self.is_running() {
            return;
        }
        if !self.ends_by(signal, STOPS_WITHIN) {
            say(format!("Killing {}, which does not stop", self.name));
            self.ends_by(Signal::KILL, DIES_WITHIN);
        }
        // What is left of its session.
        self.signal(Signal::KILL);
    }

    fn ends_by(&self, signal: Signal, limit: Duration) -> bool {
        let begun = Instant::now();
        let mut is_sent = false;
        while self.is_running() {
            is_sent = is_sent || self.signal(signal);
            if begun.elapsed() > limit {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// The signal that ends it in good order.
    pub(crate) fn ending_signal(&self) -> Signal {
        match self.name.as_str() {
            // PostgreSQL's TERM waits for clients that may never leave; INT is its fast shutdown.
            "postgres" | "postgres-1" | "postgres-2" => Signal::INT,
            // As the first process of its namespace it gets no other.
            "debootstrap" => Signal::KILL,
            _ => Signal::TERM,
        }
    }

    /// Whether the session got the signal, or the process alone if it leads none: a worker of the soak, or a process that
    /// has just started.
    fn signal(&self, signal: Signal) -> bool {
        let is_anothers = fs::metadata(format!("/proc/{}", self.pid))
            .is_ok_and(|about| about.uid() != rustix::process::geteuid().as_raw());
        // What sudo has started for us is root's.
        if is_anothers && !packages::is_root() {
            let (number, group) = (signal.as_raw().to_string(), format!("-{}", self.pid));
            let words = packages::as_root_do(["kill", "-s", &number, "--", &group]);
            return shell::of_words(&words).succeeds().unwrap_or(false);
        }
        let group = Pid::from_raw(self.pid);
        group.is_some_and(|group| kill_process_group(group, signal).is_ok()) || self.id().signal(signal)
    }
}

/// This process itself, as others find it.
pub(crate) fn own() -> Option<Process> {
    let pid = i32::try_from(std::process::id()).ok()?;
    Some(Process { name: "dev".to_owned(), pid, start: proc::start_of(pid)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn a_process_is_known_by_its_start_time_too() {
        let own = own().unwrap();
        assert!(own.is_running());
        assert!(!Process { start: own.start + 1, ..own }.is_running());
    }

    #[test]
    fn a_process_that_leads_no_session_is_stopped_too() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process { name: "worker".to_owned(), pid, start: proc::start_of(pid).unwrap() };
        process.stop(process.ending_signal());
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    }

    #[test]
    fn postgres_is_ended_by_its_fast_shutdown() {
        let of = |name: &str| Process { name: name.to_owned(), pid: 1, start: 0 }.ending_signal();
        assert_eq!(
            [of("postgres"), of("debootstrap"), of("worker")],
            [Signal::INT, Signal::KILL, Signal::TERM]
        );
    }
}
