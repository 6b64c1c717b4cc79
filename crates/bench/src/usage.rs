//! CPU and memory of processes, from /proc.

use std::{collections::BTreeMap, fs, time::Duration};

/// What /proc counts CPU in, in milliseconds, whatever the kernel's own tick is (proc(5), USER_HZ).
const TICK: u64 = 10;
/// `TCP_LISTEN` in /proc/net/tcp.
const LISTENING: &str = "0A";

/// A process's own CPU time, of the children that it has waited for, and who started it.
struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in parentheses, may hold spaces. After it comes field 3.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = number(14)? + number(15)? + number(16)? + number(17)?;
    Some(Stat { parent: u32::try_from(number(4)?).ok()?, ticks })
}

fn all() -> BTreeMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// CPU time so far of a process and all that it has started; one that has ended counts with whoever waited for it.
pub fn cpu(pid: u32) -> Duration {
    let all = all();
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(all.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    time(family.iter().filter_map(|pid| all.get(pid)).map(|stat| stat.ticks).sum())
}

/// CPU time so far of the process alone.
pub fn cpu_alone(pid: u32) -> Duration {
    stat(pid).map_or(Duration::ZERO, |stat| time(stat.ticks))
}

/// CPU time so far of the whole machine, in whatever mode; waiting for the disk is none.
pub fn cpu_of_machine() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let fields: Vec<u64> = fields.map(|field| field.parse().unwrap_or_default()).collect();
    // user, nice, system, then idle and iowait, irq, softirq (proc(5)).
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| fields.get(*at));
    time(busy.sum())
}

fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * TICK)
}

/// The process of this name that listens on a TCP port of this machine, if it can be seen from here.
pub fn listener(port: u16, name: &str) -> Option<u32> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().skip(1).filter_map(|line| listening(line, port)).collect::<Vec<_>>())
        .collect();
    let named =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name);
    all().into_keys().filter(named).find(|pid| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = files.filter_map(|file| fs::read_link(file.path()).ok());
        targets.any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    })
}

/// `socket:[…]` of a line of /proc/net/tcp, if it listens on the port.
fn listening(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, hexadecimal) = fields.get(1)?.rsplit_once(':')?;
    let same = u16::from_str_radix(hexadecimal, 16).ok()? == port && *fields.get(3)? == LISTENING;
    same.then(|| format!("socket:[{}]", fields.get(9).copied().unwrap_or_default()))
}
