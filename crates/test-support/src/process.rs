//! What the system says of processes, and signals to them.

use std::{
    fs,
    process::{Command, Stdio},
};

/// Sends SIGSTOP, SIGCONT or SIGTERM, by the name without SIG.
pub fn signal(pid: u32, name: &str) {
    // It may have ended.
    let _ = Command::new("kill").args([format!("-{name}"), pid.to_string()]).stderr(Stdio::null()).status();
}

/// Clock ticks from boot to the start of a process.
pub fn process_start(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in parentheses, may hold spaces.
    stat.rsplit_once(") ")?.1.split(' ').nth(19).map(str::to_owned)
}

/// The largest resident memory of a process so far, in KiB.
pub fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
