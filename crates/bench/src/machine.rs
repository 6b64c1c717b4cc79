//! The machine, the servers and the commit that the figures are for.

use crate::{broker, database::Database, usage};
use procfs::{CpuInfo, Current, Meminfo};
use serde::{Deserialize, Serialize};
use std::{fs, process::Command, thread::available_parallelism};
use test_support::driver::RunEnvironment;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub processor: String,
    pub cores: usize,
    /// In GiB.
    pub memory: u64,
    pub kernel: String,
    pub postgres: String,
    pub rabbitmq: String,
    pub commit: String,
}

/// The main processes of the servers. `None` for a server on another machine or in a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerPids {
    pub postgres: Option<u32>,
    pub broker: Option<u32>,
}

impl Machine {
    pub(crate) async fn detect(environment: &RunEnvironment, database: &Database) -> Self {
        let (host, port) = address(&environment.amqp_url, 5_672);
        let unknown = || "unknown".to_owned();
        let processor = CpuInfo::current().ok().and_then(|cpus| cpus.model_name(0).map(str::to_owned));
        Self {
            processor: processor.unwrap_or_else(unknown),
            cores: available_parallelism().map_or(1, usize::from),
            memory: Meminfo::current().map_or(0, |memory| (memory.mem_total + (1 << 29)) >> 30),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim_end()
                .to_owned(),
            postgres: database.version().await.unwrap_or_else(|_| unknown()),
            rabbitmq: broker::version(&host, port).unwrap_or_else(unknown),
            commit: commit().unwrap_or_else(unknown),
        }
    }

    /// One line.
    pub(crate) fn describe(&self) -> String {
        let Self { processor, cores, memory, kernel, postgres, rabbitmq, commit } = self;
        format!(
            "{processor}, {cores} cores, {memory} GiB; Linux {kernel}; PostgreSQL {postgres}, RabbitMQ {rabbitmq}; commit {commit}"
        )
    }
}

impl ServerPids {
    pub(crate) fn find(environment: &RunEnvironment) -> Self {
        let listener = |url: &str, port, name| {
            let (host, port) = address(url, port);
            matches!(host.as_str(), "127.0.0.1" | "localhost" | "::1").then(|| usage::listener(port, name))?
        };
        Self {
            postgres: listener(&environment.database_url, 5_432, "postgres"),
            broker: listener(&environment.amqp_url, 5_672, "beam.smp"),
        }
    }
}

/// Host and port of a server's URL.
fn address(url: &str, default: u16) -> (String, u16) {
    let url = url::Url::parse(url).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or("127.0.0.1").to_owned();
    (host, url.and_then(|url| url.port()).unwrap_or(default))
}

/// The commit that is checked out, and whether files differ from it.
fn commit() -> Option<String> {
    let arguments = ["describe", "--always", "--abbrev=10", "--dirty=, changed", "--exclude=*"];
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
