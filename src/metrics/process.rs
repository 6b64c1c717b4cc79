//! What every Prometheus client reports of its process (<https://prometheus.io/docs/instrumenting/writing_clientlibs/>), and
//! which build it is. It is read from /proc when `/metrics` is requested.

use std::{fmt::Write, fs, sync::LazyLock};

/// When the process began, in seconds since 1970.
static START: LazyLock<Option<f64>> = LazyLock::new(|| {
    let booted = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = booted.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + Stat::read()?.started_after_boot)
});

struct Stat {
    cpu_seconds: f64,
    started_after_boot: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    /// See proc_pid_stat(5).
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The second field, the program's name in brackets, may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // The first of them is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        #[expect(clippy::cast_precision_loss, reason = "it is 100, or some hundreds")]
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            started_after_boot: field(22)? / ticks,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// The metrics of the process and of the build, in Prometheus's text format.
pub(crate) fn exposition() -> String {
    let mut text = String::with_capacity(2_048);
    let mut add = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
    };
    let stat = Stat::read();
    let of = |value: fn(&Stat) -> f64| stat.as_ref().map(value);
    add(
        "process_cpu_seconds_total",
        "counter",
        "User and system CPU time of the process, in seconds.",
        of(|stat| stat.cpu_seconds),
    );
    #[expect(clippy::cast_precision_loss, reason = "pages have some thousand bytes")]
    let page = rustix::param::page_size() as f64;
    add(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory of the process, in bytes.",
        stat.as_ref().map(|stat| stat.resident_pages * page),
    );
    add(
        "process_virtual_memory_bytes",
        "gauge",
        "Virtual memory of the process, in bytes.",
        of(|stat| stat.virtual_bytes),
    );
    add("process_open_fds", "gauge", "Open file descriptors of the process.", open_files());
    add("process_max_fds", "gauge", "File descriptors that the process may open.", Some(max_files()));
    add("process_start_time_seconds", "gauge", "When the process began, in seconds since 1970.", *START);
    let _ = write!(
        text,
        "# HELP session_invite_build_info The release that runs, as a label; the value is always 1.\n\
         # TYPE session_invite_build_info gauge\n\
         session_invite_build_info{{version=\"{}\"}} 1\n\n",
        env!("CARGO_PKG_VERSION")
    );
    text
}

#[expect(clippy::cast_precision_loss, reason = "a count of files")]
fn open_files() -> Option<f64> {
    // One of them is that of this folder.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

#[expect(clippy::cast_precision_loss, reason = "a count of files")]
fn max_files() -> f64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(f64::INFINITY, |limit| limit as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_whose_name_has_brackets_is_read_right() {
        let stat = "7 (a) b (c) S 1 1 1 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 4 0 6000 1048576 300 9 1 1";
        let stat = Stat::parse(stat).unwrap();
        assert!((stat.cpu_seconds - 4.0).abs() < 1e-9 && (stat.started_after_boot - 60.0).abs() < 1e-9);
        assert!(
            (stat.virtual_bytes - 1_048_576.0).abs() < 1e-9 && (stat.resident_pages - 300.0).abs() < 1e-9
        );
    }

    #[test]
    fn this_process_has_all_of_them() {
        let text = exposition();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
            "session_invite_build_info",
        ] {
            assert!(text.contains(&format!("\n{name}")), "{name}\n{text}");
        }
    }
}
