//! Signals to processes, and facts about them from /proc.

use procfs::process::Process;
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use std::io;

/// Sends a signal. It fails if the process has ended and its parent has waited for it.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, signal)?)
}

/// Clock ticks from boot to the start of a process.
pub fn process_start(pid: u32) -> Option<u64> {
    Some(process(pid)?.stat().ok()?.starttime)
}

/// The largest resident memory of a process so far, in KiB.
pub fn peak_memory(pid: u32) -> Option<u64> {
    process(pid)?.status().ok()?.vmhwm
}

fn process(pid: u32) -> Option<Process> {
    Process::new(pid.try_into().ok()?).ok()
}
