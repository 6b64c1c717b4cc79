//! CPU time of processes, from /proc.

use procfs::{
    CurrentSI, KernelStats,
    net::TcpState,
    process::{FDTarget, Process, Stat, all_processes},
};
use std::{collections::BTreeSet, time::Duration};

/// CPU time so far of a process and of all its descendants. That of an ended process counts for the parent that waited
/// for it.
pub(crate) fn cpu(pid: u32) -> Duration {
    let all: Vec<Stat> =
        all_processes().into_iter().flatten().filter_map(|process| process.ok()?.stat().ok()).collect();
    let mut family: Vec<i32> = pid.try_into().into_iter().collect();
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|stat| stat.ppid == parent).map(|stat| stat.pid));
        next += 1;
    }
    all.iter().filter(|stat| family.contains(&stat.pid)).map(cpu_of_stat).sum()
}

/// CPU time so far of the process alone.
pub(crate) fn cpu_alone(pid: u32) -> Duration {
    let stat = pid.try_into().ok().and_then(|pid| Process::new(pid).ok()?.stat().ok());
    stat.as_ref().map(cpu_of_stat).unwrap_or_default()
}

/// CPU time so far of the whole machine, interrupts included. Waiting for the disk does not count.
pub(crate) fn cpu_of_machine() -> Duration {
    let total = KernelStats::current().map(|stats| stats.total);
    total.map_or(Duration::ZERO, |cpu| {
        let busy =
            cpu.user + cpu.nice + cpu.system + cpu.irq.unwrap_or_default() + cpu.softirq.unwrap_or_default();
        from_ticks(busy)
    })
}

/// The process's own time, and that of the children that it has waited for.
fn cpu_of_stat(stat: &Stat) -> Duration {
    let of_children = u64::try_from(stat.cutime + stat.cstime).unwrap_or_default();
    from_ticks(stat.utime + stat.stime + of_children)
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1_000 / procfs::ticks_per_second())
}

/// The process of this name that listens on a TCP port of this machine, if this process may see it.
pub(crate) fn listener(port: u16, name: &str) -> Option<u32> {
    let connections = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
    let listening = connections.filter(|it| it.state == TcpState::Listen && it.local_address.port() == port);
    let sockets: BTreeSet<u64> = listening.map(|it| it.inode).collect();
    let is_listener = |process: &Process| {
        let files = process.fd().into_iter().flatten().flatten();
        files
            .into_iter()
            .any(|file| matches!(file.target, FDTarget::Socket(inode) if sockets.contains(&inode)))
    };
    let processes = all_processes().into_iter().flatten().flatten();
    let mut named = processes.filter(|process| process.stat().is_ok_and(|stat| stat.comm == name));
    named.find(is_listener)?.pid().try_into().ok()
}
