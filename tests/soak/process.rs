//! What the system and the logs say of processes.

use std::{
    fs,
    path::Path,
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

/// Lines of the workers' logs that should not be there.
pub fn errors(logs: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(logs).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("worker-") {
            continue;
        }
        let log = fs::read_to_string(entry.path()).unwrap_or_default();
        let errors = log.lines().filter(|line| line.contains(" ERROR ") || line.contains("panicked"));
        found.extend(errors.map(|line| format!("{name}: {line}")));
    }
    found.sort();
    found
}
