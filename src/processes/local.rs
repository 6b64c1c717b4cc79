//! Where this process runs, and what becomes of other processes of the same machine, as the kernel shows it in `/proc`.

use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};
use std::{fs, io};

/// With fewer free file descriptors than this, a connection may fail soon.
const FREE_AT_LEAST: u64 = 4;

/// Where a process runs. Where there is no `/proc`, all is empty but its id.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub host: String,
    /// The boot of the kernel, and the namespace of process ids.
    pub machine: String,
    pub pid: i32,
    pub start_ticks: i64,
}

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Runs,
    /// By a signal, or by a debugger.
    Stopped,
    Gone,
    /// It runs on another machine, or in another container.
    Elsewhere,
}

impl Place {
    pub(super) fn of_this_process() -> Self {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let machine = match boot.trim() {
            "" => String::new(),
            boot => format!("{boot} {}", space.display()),
        };
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "an unnamed host" } else { host.trim() };
        let start_ticks = stat(pid).map_or(0, |stat| stat.start_ticks);
        Self { host: host.to_owned(), machine, pid, start_ticks }
    }
}

/// What has become of a process of this machine.
pub(super) fn presence(pid: i32, start_ticks: i64) -> Presence {
    match stat(pid) {
        Some(stat) if stat.start_ticks != start_ticks => Presence::Gone,
        Some(ProcessStat { state: 'T' | 't', .. }) => Presence::Stopped,
        Some(ProcessStat { state: 'Z' | 'X', .. }) | None => Presence::Gone,
        Some(_) => Presence::Runs,
    }
}

/// The problem, if this process has no file descriptors left, or nearly none.
pub(crate) fn files_problem() -> Option<String> {
    let limit = getrlimit(Resource::Nofile).current?;
    let open = match fs::read_dir("/proc/self/fd") {
        Ok(files) => u64::try_from(files.count()).unwrap_or(u64::MAX),
        Err(error) if is_without_files(&error) => limit,
        // There is no `/proc`.
        Err(_) => return None,
    };
    (open.saturating_add(FREE_AT_LEAST) > limit).then(|| {
        format!(
            "this process has {open} files and connections open, and may have {limit}: it cannot accept or open further \
             connections. What to do: raise its limit of open files (ulimit -n, LimitNOFILE= of its service, --ulimit of its \
             container), and restart it"
        )
    })
}

fn is_without_files(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

struct ProcessStat {
    state: char,
    start_ticks: i64,
}

/// Of `/proc/PID/stat` (proc(5)). The name of the program may hold spaces and parentheses.
fn stat(pid: i32) -> Option<ProcessStat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = text.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    let state = fields.next()?.chars().next()?;
    // The 22nd field; the state is the third.
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(ProcessStat { state, start_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_few_open_files_has_no_problem() {
        assert_eq!(files_problem(), None);
    }

    #[test]
    fn this_process_runs_and_one_with_another_start_is_gone() {
        let here = Place::of_this_process();
        assert!(!here.host.is_empty());
        assert_eq!(presence(here.pid, here.start_ticks), Presence::Runs);
        assert_eq!(presence(here.pid, here.start_ticks + 1), Presence::Gone);
        assert_eq!(presence(i32::MAX, 0), Presence::Gone);
    }
}
