//! The options and the environment of `./dev bench`.

use crate::scenario::BenchPart;
use std::{net::SocketAddr, path::PathBuf};
use test_support::driver::{self, RunEnvironment, setting};

const EXAMPLES: &str = "\
Examples:
  ./dev bench                                two to three minutes: every part once
  ./dev bench --only throughput              a few seconds
  ./dev bench --only gateway --rounds 3      over HTTP, and over the queue alone
  ./dev bench --only growth --rows 1000000   with a million old sessions in the table
  ./dev bench --full --write                 the documented figures: three rounds, 5,000,000 old rows, a curve of latency
  ./dev bench --again --write                draws and writes the last run again, without measuring

The figures hold for this machine at this time. Let nothing else run, and compare with the floor of the same run.
The benchmark fails when an invite has no reply, more than one, one that is not `sent`, or more than one text, and when
a request over HTTP is not answered 200. It never fails for being slow.";

/// Throughput, latency, CPU and memory of the release build, compared with a consumer that only replies and acknowledges
#[derive(Debug, Clone, clap::Parser)]
#[command(bin_name = "./dev bench", after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub role: Option<Role>,
    /// Run only this part, and what it is compared with; may be repeated
    #[arg(long, value_name = "PART")]
    pub only: Vec<BenchPart>,
    /// Three rounds and their medians, more rates, 5,000,000 old rows; takes about half an hour
    #[arg(long)]
    pub full: bool,
    /// Old sessions for `growth` [default: 200000, with --full 5000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    pub rows: Option<u32>,
    /// Rounds, whose median counts [default: 1, with --full 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=99))]
    pub rounds: Option<u16>,
    /// Invites in each measurement [default: by part, enough for some seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub invites: Option<u32>,
    /// A setting of the workers and the gateway, such as PREFETCH=200
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Record the first worker of each measurement, or its gateway, with perf into .dev/perf.data; ./dev profile builds with symbols
    #[arg(long)]
    pub profile: bool,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
    /// Write docs/performance.svg and the figures in docs/PERFORMANCE.md and docs/SCALING.md
    #[arg(long, conflicts_with = "only")]
    pub write: bool,
    /// Report the last run again, from .dev/bench.json
    #[arg(long, conflicts_with_all = ["only", "full", "rows", "rounds", "invites", "settings"])]
    pub again: bool,
    /// Only check the options
    #[arg(long, hide = true)]
    pub check: bool,
}

/// The roles in which the benchmark starts itself again.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Role {
    #[command(hide = true)]
    Floor { amqp_url: String, queue: String },
    #[command(hide = true)]
    Provider { latency_ms: u64 },
    #[command(hide = true)]
    Crowd { gateway: SocketAddr, idle: usize, slow: usize },
}

impl Options {
    pub(crate) fn includes(&self, part: BenchPart) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    pub(crate) fn rows(&self) -> u32 {
        self.rows.unwrap_or(if self.full { 5_000_000 } else { 200_000 })
    }

    pub(crate) fn rounds(&self) -> u16 {
        self.rounds.unwrap_or(if self.full { 3 } else { 1 })
    }
}

/// Paths, servers and queues of a run.
#[derive(Debug, Clone)]
pub(crate) struct BenchEnvironment {
    pub run: RunEnvironment,
    pub queue_prefix: String,
}

impl BenchEnvironment {
    /// `None` if a variable is missing.
    pub(crate) fn read() -> Option<Self> {
        Some(Self { run: RunEnvironment::read("BENCH")?, queue_prefix: driver::variable("QUEUE_PREFIX")? })
    }

    /// The figures of the last run.
    pub(crate) fn report_file(&self) -> PathBuf {
        self.run.reports.join("bench.json")
    }

    pub(crate) fn profile_file(&self) -> PathBuf {
        self.run.reports.join("perf.data")
    }
}
