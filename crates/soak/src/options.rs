//! The options of `./dev soak`.

use crate::{
    cluster::Replication,
    cluster_plan::{SETTINGS, Setting},
};
use clap::builder::PossibleValuesParser;
use std::path::PathBuf;
use test_support::driver::{self, RunEnvironment, setting};

/// Random invites, killed workers, restarted servers, a faulty provider; then each invite is accounted for
#[derive(Debug, Clone, clap::Parser)]
#[command(bin_name = "./dev soak")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Options {
    /// Repeats the invites, the faults and their times; random by default, or the setting's
    #[arg(long)]
    pub seed: Option<u64>,
    /// How long invites are published and faults happen; the wait for the last answers comes after that [default: 60, or
    /// the setting's]
    #[arg(long, value_parser = clap::value_parser!(u64).range(5..=3_000))]
    pub seconds: Option<u64>,
    /// Invites to publish [default: 20 for each second, in the setting everything 50]
    #[arg(long)]
    pub invites: Option<usize>,
    /// Worker processes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub workers: u16,
    /// Upstream systems, each with its own connections
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub publishers: u16,
    /// Largest number of unanswered invites
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..))]
    pub window: u16,
    /// Seconds to wait for the last answers
    #[arg(long, default_value_t = 240)]
    pub patience: u64,
    /// How often a worker gets `kill -9` [default: 8 a minute]
    #[arg(long)]
    pub kills: Option<u64>,
    /// How often a gateway gets `kill -9` [default: 6 a minute]
    #[arg(long)]
    pub gateway_kills: Option<u64>,
    /// How often a worker gets SIGTERM, after which it must exit with success [default: 2 a minute]
    #[arg(long)]
    pub terms: Option<u64>,
    /// How often a worker gets SIGSTOP, and SIGCONT after seconds or after its lease [default: 6 a minute]
    #[arg(long)]
    pub stops: Option<u64>,
    /// How often workers' connections are cut, for each of broker, database and provider [default: 4 a minute]
    #[arg(long)]
    pub cuts: Option<u64>,
    /// How often a worker's connections stall for seconds, for each of broker, database and provider [default: 2 a minute]
    #[arg(long)]
    pub stalls: Option<u64>,
    /// Restarts of the broker, alternately clean and by `kill -9` [default: 1 a minute]
    #[arg(long)]
    pub broker_restarts: Option<u64>,
    /// Restarts of the database: without a checkpoint, by `kill -9` of one backend, and clean, in turn [default: 1 a minute]
    #[arg(long)]
    pub database_restarts: Option<u64>,
    /// How often `pg_terminate_backend` ends all connections of the workers [default: 1 a minute]
    #[arg(long)]
    pub massacres: Option<u64>,
    /// Messages that no client library can decode [default: 1 in two minutes]
    #[arg(long)]
    pub undecodable: Option<u64>,
    /// The provider injects no faults
    #[arg(long)]
    pub honest_provider: bool,
    /// The provider sends no receipts: only its list shows whether it has a text whose answer was lost. Without receipts
    /// is also a run with --set SMS_WHEN_UNSURE=resend, as a receipt could settle a text before it is sent again
    #[arg(long)]
    pub no_receipts: bool,
    /// A setting of the workers, such as SMS_WHEN_UNSURE=resend
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// On three broker nodes and two database nodes, in network namespaces of this run
    #[arg(long)]
    pub cluster: bool,
    /// Which nodes fail, and how [default: everything]
    #[arg(long, value_name = "NAME", requires = "cluster", value_parser = setting_names())]
    pub setting: Option<String>,
    /// The previous release's program: ./dev upgrade names it
    #[arg(long, hide = true, value_name = "PROGRAM")]
    pub previous: Option<PathBuf>,
    /// Keep the logs in .dev/soak-SEED even if the soak passes
    #[arg(long)]
    pub keep: bool,
    /// Only check the options
    #[arg(long, hide = true)]
    pub check: bool,
}

impl Options {
    /// The setting of a cluster.
    pub(crate) fn setting(&self) -> Option<Setting> {
        let name = self.setting.as_deref().unwrap_or("everything");
        if self.cluster { Setting::of(name) } else { None }
    }

    /// Whether a commit waits for the standby, in a cluster.
    pub(crate) fn replication(&self) -> Replication {
        self.setting().map_or(Replication::Synchronous, |setting| setting.replication)
    }

    pub(crate) fn seconds(&self) -> u64 {
        self.seconds.unwrap_or_else(|| self.setting().map_or(60, |setting| setting.seconds))
    }

    pub(crate) fn seed(&self) -> u64 {
        let of_setting = || self.setting().map_or_else(|| u64::from(rand::random::<u32>()), |it| it.seed);
        self.seed.unwrap_or_else(of_setting)
    }

    /// The given number, or the usual rate times the duration.
    pub(crate) fn invites(&self) -> usize {
        let seconds = usize::try_from(self.seconds()).unwrap_or_default();
        self.invites.unwrap_or(seconds * self.setting().map_or(20, |setting| setting.rate))
    }

    /// Whether the workers send a text again without a look. This self-test must fail.
    pub(crate) fn resends(&self) -> bool {
        let of_name = |(name, _): &&(String, String)| name == "SMS_WHEN_UNSURE";
        self.settings.iter().rfind(of_name).is_some_and(|(_, value)| value == "resend")
    }

    /// Whether the provider sends receipts.
    pub(crate) fn has_receipts(&self) -> bool {
        !self.no_receipts && !self.resends()
    }

    /// The given number, or this rate times the duration, at least 1. Most settings of a cluster lower the rate, and an
    /// upgrade does.
    pub(crate) fn per_minute(&self, given: Option<u64>, rate: f64) -> u64 {
        let rate = rate * self.setting().map_or(1.0, |setting| setting.background);
        let rate = if self.previous.is_some() { rate / 3.0 } else { rate };
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small"
        )]
        let scaled = (self.seconds() as f64 / 60.0 * rate).round() as u64;
        given.unwrap_or(scaled.max(1))
    }
}

fn setting_names() -> PossibleValuesParser {
    PossibleValuesParser::new(SETTINGS.map(|setting| setting.name))
}

/// Paths and servers of a soak.
#[derive(Debug, Clone)]
pub(crate) struct SoakEnvironment {
    pub run: RunEnvironment,
    /// The program behind `./dev`, which stops and starts the servers.
    pub xtask: PathBuf,
}

impl SoakEnvironment {
    /// `None` if a variable is missing.
    pub(crate) fn read() -> Option<Self> {
        Some(Self { run: RunEnvironment::read("SOAK")?, xtask: driver::variable("SOAK_XTASK")?.into() })
    }
}
