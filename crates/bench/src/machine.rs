//! What the figures are of: the machine, the servers, and the code.

use crate::{broker, database::Database, options::Surroundings, usage};
use serde::{Deserialize, Serialize};
use std::{fs, process::Command, thread::available_parallelism};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    /// In GiB.
    pub memory: u64,
    pub kernel: String,
    pub postgres: String,
    pub rabbitmq: String,
    pub commit: String,
}

/// Processes whose CPU is read, where they can be seen.
#[derive(Debug, Clone, Copy)]
pub struct Servers {
    pub postgres: Option<u32>,
    pub broker: Option<u32>,
}

impl Machine {
    pub async fn look(surroundings: &Surroundings, database: &Database) -> Self {
        let (host, port) = address(&surroundings.broker, 5_672);
        let unknown = || "unknown".to_owned();
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            cores: available_parallelism().map_or(1, usize::from),
            memory: field(&read("/proc/meminfo"), "MemTotal")
                .and_then(|size| size.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kibibytes| (kibibytes + (1 << 19)) >> 20),
            kernel: read("/proc/sys/kernel/osrelease").trim_end().to_owned(),
            postgres: database.version().await.unwrap_or_else(|_| unknown()),
            rabbitmq: broker::version(&host, port).unwrap_or_else(unknown),
            commit: commit().unwrap_or_else(unknown),
        }
    }

    /// One line.
    pub fn describe(&self) -> String {
        let Self { processor, cores, memory, kernel, postgres, rabbitmq, commit } = self;
        format!(
            "{processor}, {cores} cores, {memory} GiB; Linux {kernel}; PostgreSQL {postgres}, RabbitMQ {rabbitmq}; commit {commit}"
        )
    }
}

impl Servers {
    pub fn find(surroundings: &Surroundings) -> Self {
        let of = |url: &str, port, name| {
            let (host, port) = address(url, port);
            matches!(host.as_str(), "127.0.0.1" | "localhost" | "::1").then(|| usage::listener(port, name))?
        };
        Self {
            postgres: of(&surroundings.database, 5_432, "postgres"),
            broker: of(&surroundings.broker, 5_672, "beam.smp"),
        }
    }
}

/// Host and port of a server's URL.
fn address(url: &str, default: u16) -> (String, u16) {
    let url = url::Url::parse(url).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or("127.0.0.1").to_owned();
    (host, url.and_then(|url| url.port()).unwrap_or(default))
}

/// The first value of that name in a file of `name : value` lines.
fn field(text: &str, name: &str) -> Option<String> {
    let (_, value) = text.lines().find(|line| line.starts_with(name))?.split_once(':')?;
    Some(value.trim().to_owned())
}

/// What is checked out, and whether it was changed.
fn commit() -> Option<String> {
    let arguments = ["describe", "--always", "--abbrev=10", "--dirty=, changed", "--exclude=*"];
    let told = Command::new("git").args(arguments).output().ok().filter(|told| told.status.success())?;
    Some(String::from_utf8_lossy(&told.stdout).trim_end().to_owned())
}
