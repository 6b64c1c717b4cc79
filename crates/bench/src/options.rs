//! What `./dev bench` takes.

use crate::part::Part;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  ./dev bench                                two to three minutes: every part once
  ./dev bench --only throughput              a few seconds
  ./dev bench --only gateway --rounds 3      over HTTP, beside the queue alone
  ./dev bench --only growth --rows 1000000   beside a million old sessions
  ./dev bench --full --write                 the documented figures: three rounds, 5,000,000 old rows, a curve of latency
  ./dev bench --again --write                draws and writes the last run once more, without measuring

Figures are of this machine, and of this moment: let nothing else run, and compare with the floor of the same run.
It fails when an invite has no reply, more than one, another than `sent`, or more than one text, and when a request
over HTTP is not answered 200; never for being slow.";

/// Throughput, latency, CPU and memory of the release build, beside a bare consumer that replies and acknowledges
#[derive(Debug, Clone, clap::Parser)]
#[command(bin_name = "./dev bench", after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags")]
pub struct Options {
    /// Run only this part, and what it is compared with; may be repeated
    #[arg(long, value_name = "PART")]
    pub only: Vec<Part>,
    /// Three rounds and their medians, more rates, 5,000,000 old rows; takes about half an hour
    #[arg(long)]
    pub full: bool,
    /// Old sessions for `growth` [default: 200000, with --full 5000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    pub rows: Option<u32>,
    /// Rounds, of which the median counts [default: 1, with --full 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=99))]
    pub rounds: Option<u16>,
    /// Invites in each measurement [default: by part, for seconds of each]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub invites: Option<u32>,
    /// A setting of the workers and the gateway, such as PREFETCH=200
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Record the first worker of each measurement, or its gateway, with perf into .dev/perf.data; ./dev profile has it readable
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

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is wanted")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Options {
    pub fn runs(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    pub fn rows(&self) -> u32 {
        self.rows.unwrap_or(if self.full { 5_000_000 } else { 200_000 })
    }

    pub fn rounds(&self) -> u16 {
        self.rounds.unwrap_or(if self.full { 3 } else { 1 })
    }
}

/// What `./dev bench` has found or made, and tells in the environment.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The run's directory; the logs of workers go there.
    pub run: PathBuf,
    /// Where the last run's figures are kept.
    pub reports: PathBuf,
    /// The program under test.
    pub program: PathBuf,
    pub database: String,
    pub broker: String,
    pub queue_prefix: String,
}

impl Surroundings {
    /// `None` when something is missing.
    pub fn read() -> Option<Self> {
        let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Some(Self {
            run: read("BENCH_RUN_DIR")?.into(),
            reports: read("BENCH_REPORTS")?.into(),
            program: read("SESSION_INVITE_BIN")?.into(),
            database: read("DATABASE_URL")?,
            broker: read("AMQP_URL")?,
            queue_prefix: read("QUEUE_PREFIX")?,
        })
    }

    pub fn kept(&self) -> PathBuf {
        self.reports.join("bench.json")
    }

    pub fn profile(&self) -> PathBuf {
        self.reports.join("perf.data")
    }
}
