//! What `./dev soak` takes.

use std::path::PathBuf;

/// Random invites, workers that are killed, servers that go away, a provider that lies; then each invite is accounted for
#[derive(Debug, Clone, clap::Parser)]
#[command(bin_name = "./dev soak")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Options {
    /// Repeats the invites, the faults and their times; random unless given
    #[arg(long)]
    pub seed: Option<u64>,
    /// How long invites come and faults happen; waiting for the last answers comes on top
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3_000))]
    pub seconds: u64,
    /// Invites to publish [default: 20 for each second]
    #[arg(long)]
    pub invites: Option<usize>,
    /// Worker processes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub workers: u16,
    /// Upstream systems, each with connections of its own
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub publishers: u16,
    /// Invites without an answer at most
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u16).range(1..))]
    pub window: u16,
    /// Seconds to wait for the last answers
    #[arg(long, default_value_t = 240)]
    pub patience: u64,
    /// `kill -9` of a worker, so many times [default: 8 a minute]
    #[arg(long)]
    pub kills: Option<u64>,
    /// `kill -9` of a gateway, so many times [default: 6 a minute]
    #[arg(long)]
    pub gateway_kills: Option<u64>,
    /// SIGTERM to a worker, which has to end well [default: 2 a minute]
    #[arg(long)]
    pub terms: Option<u64>,
    /// SIGSTOP to a worker, and SIGCONT after seconds, or after its lease [default: 6 a minute]
    #[arg(long)]
    pub stops: Option<u64>,
    /// Cuts of workers' connections, to the broker, the database and the provider each [default: 4 a minute]
    #[arg(long)]
    pub cuts: Option<u64>,
    /// Lines that carry nothing for seconds, to the broker, the database and the provider each [default: 2 a minute]
    #[arg(long)]
    pub stalls: Option<u64>,
    /// Restarts of the broker, by turns clean and by `kill -9` [default: 1 a minute]
    #[arg(long)]
    pub broker_restarts: Option<u64>,
    /// Ends of the database: clean, without a checkpoint, and `kill -9` of one backend, by turns [default: 1 a minute]
    #[arg(long)]
    pub database_restarts: Option<u64>,
    /// `pg_terminate_backend` of every connection of the workers [default: 1 a minute]
    #[arg(long)]
    pub massacres: Option<u64>,
    /// Messages that no client library can decode [default: 1 in two minutes]
    #[arg(long)]
    pub undecodable: Option<u64>,
    /// The provider works as it should
    #[arg(long)]
    pub honest_provider: bool,
    /// The provider sends no receipts, so that only its list says what became of a text whose answer was lost. Without
    /// receipts is also a run with --set SMS_WHEN_UNSURE=resend: one may settle a text before it is sent again
    #[arg(long)]
    pub no_receipts: bool,
    /// A setting of the workers, such as SMS_WHEN_UNSURE=resend
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// Keep the logs in .dev/soak-SEED even when all is well
    #[arg(long)]
    pub keep: bool,
    /// Only check the options
    #[arg(long, hide = true)]
    pub check: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is wanted")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Options {
    pub fn invites(&self) -> usize {
        self.invites.unwrap_or_else(|| 20 * usize::try_from(self.seconds).unwrap_or_default())
    }

    /// Whether the workers send again without a look, which has to fail: the self-test.
    pub fn resends(&self) -> bool {
        let of_name = |(name, _): &&(String, String)| name == "SMS_WHEN_UNSURE";
        self.settings.iter().rfind(of_name).is_some_and(|(_, value)| value == "resend")
    }

    /// Whether the provider sends receipts.
    pub fn has_receipts(&self) -> bool {
        !self.no_receipts && !self.resends()
    }

    /// A number that grows with the time, and is at least one.
    pub fn per_minute(&self, given: Option<u64>, rate: f64) -> u64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small"
        )]
        let scaled = (self.seconds as f64 / 60.0 * rate).round() as u64;
        given.unwrap_or(scaled.max(1))
    }
}

/// What `./dev soak` has started, and tells in the environment.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The run's directory, with its undo log.
    pub run: PathBuf,
    /// Where reports go.
    pub reports: PathBuf,
    /// The program under test.
    pub program: PathBuf,
    pub database: String,
    pub broker: String,
}

impl Surroundings {
    /// `None` when something is missing.
    pub fn read() -> Option<Self> {
        let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Some(Self {
            run: read("SOAK_RUN_DIR")?.into(),
            reports: read("SOAK_REPORTS")?.into(),
            program: read("SESSION_INVITE_BIN")?.into(),
            database: read("DATABASE_URL")?,
            broker: read("AMQP_URL")?,
        })
    }
}
