//! `session-invite sms-sandbox`: a local Twilio-style provider with an inbox to look at.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use secrecy::SecretString;
use serde::{Deserialize as _, Serialize};
use serde_json::{Map, Value};
use sms_sandbox::{Account, DeliveryOutcome, FaultSettings, SettingError, Settings};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  An inbox at http://127.0.0.1:8081 that takes every text:
    session-invite sms-sandbox --port 8081

  A worker that sends to it:
    SMS_BASE_URL=http://127.0.0.1:8081 session-invite worker

  A slow provider that throttles one text in ten and cuts one connection in a hundred:
    session-invite sms-sandbox --latency-ms 80 --throttle 0.1 --cut 0.01 --seed 7

  Other faults while it runs, and then what it accepted:
    curl -X PUT http://127.0.0.1:8081/sandbox/faults --json '{\"cut\": 0, \"next\": [\"hang\", \"ok\"]}'
    curl http://127.0.0.1:8081/sandbox/messages
    curl http://127.0.0.1:8081/sandbox/stats";

/// A local Twilio-style provider with an inbox to look at. It sends no text
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SmsSandboxArgs {
    /// The port to listen on; 0 takes a free one, and prints it
    #[arg(long, default_value_t = 8081)]
    port: u16,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Serve this account only; without it any user and password are good
    #[arg(long, value_name = "AC…", requires = "auth_token")]
    account_sid: Option<String>,
    /// The account's auth token, which also signs its status callbacks
    #[arg(long, value_name = "TOKEN", requires = "account_sid")]
    auth_token: Option<SecretString>,
    /// How many of the newest messages to keep in memory
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = keep)]
    keep: usize,
    /// Seed of the random faults: with the same seed they come in the same order
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Send no status callbacks
    #[arg(long)]
    no_callbacks: bool,
    #[command(flatten, next_help_heading = "Faults (shares of the texts, from 0 to 1)")]
    faults: FaultArgs,
}

/// The settings of `/sandbox/faults` as flags.
#[derive(Debug, clap::Args, Serialize)]
struct FaultArgs {
    /// How long to wait before each answer, in milliseconds
    #[arg(long, value_name = "MS")]
    latency_ms: Option<u64>,
    /// Answer 429 with Retry-After
    #[arg(long, value_name = "SHARE")]
    throttle: Option<f64>,
    /// The Retry-After of a throttled text, in seconds [default: 1]
    #[arg(long, value_name = "SECONDS")]
    retry_after: Option<u64>,
    /// Answer 429 with 63038: no more texts today
    #[arg(long, value_name = "SHARE")]
    daily_limit: Option<f64>,
    /// Answer 503 without accepting
    #[arg(long, value_name = "SHARE")]
    fail: Option<f64>,
    /// Accept, and answer 500
    #[arg(long, value_name = "SHARE")]
    accept_then_fail: Option<f64>,
    /// Accept, and cut the connection
    #[arg(long, value_name = "SHARE")]
    cut: Option<f64>,
    /// Cut the connection without accepting
    #[arg(long, value_name = "SHARE")]
    cut_before: Option<f64>,
    /// Accept, and never answer
    #[arg(long, value_name = "SHARE")]
    hang: Option<f64>,
    /// Accept, and answer 201 without a sid
    #[arg(long, value_name = "SHARE")]
    no_sid: Option<f64>,
    /// Answer 302 without accepting
    #[arg(long, value_name = "SHARE")]
    redirect: Option<f64>,
    /// Answer 200 with an HTML page, without accepting
    #[arg(long, value_name = "SHARE")]
    garbage: Option<f64>,
    /// Answer this Twilio error code to every text
    #[arg(long, value_name = "CODE")]
    error_code: Option<u32>,
    /// The HTTP status of --error-code [default: 400]
    #[arg(long, value_name = "STATUS")]
    error_status: Option<u16>,
    /// How long an accepted text stays out of the list, in milliseconds
    #[arg(long, value_name = "MS")]
    list_lag_ms: Option<u64>,
    /// The last receipt of each text [default: delivered]
    #[arg(long)]
    deliver: Option<DeliveryOutcome>,
    /// Faults of the first texts, in this order, such as throttle,cut,ok
    #[arg(long, value_name = "FAULTS", value_delimiter = ',')]
    next: Vec<String>,
}

impl FaultArgs {
    /// The faults, by way of the JSON that `/sandbox/faults` takes: the same names, the same checks.
    fn faults(&self) -> anyhow::Result<FaultSettings> {
        let mut changes = Map::deserialize(serde_json::to_value(self)?)?;
        changes.retain(|_, value: &mut Value| !value.is_null());
        Ok(FaultSettings::default().patched(&changes)?)
    }
}

fn keep(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "must be a whole number from 1".to_owned())
}

impl SmsSandboxArgs {
    fn settings(self) -> anyhow::Result<Settings> {
        let faults = self.faults.faults()?;
        let account =
            self.account_sid.zip(self.auth_token).map(|(sid, auth_token)| Account { sid, auth_token });
        Ok(Settings { account, faults, callbacks: !self.no_callbacks, keep: self.keep, seed: self.seed })
    }
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
///
/// When a fault's setting is out of range, or the address cannot be bound.
pub(crate) async fn run(args: SmsSandboxArgs) -> anyhow::Result<()> {
    let address = SocketAddr::new(args.bind, args.port);
    let settings = args.settings()?;
    // Before the address is announced: a script that reads it may send a signal at once.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    announce(listener.local_addr()?)?;
    let shutdown = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    sms_sandbox::serve(listener, settings, shutdown).await.context("the sandbox ended")
}

/// Whether the error is a fault's setting that is out of range.
pub(crate) fn is_wrong_usage(error: &anyhow::Error) -> bool {
    error.is::<SettingError>()
}

fn announce(address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on http://{address} (inbox at /, faults at /sandbox/faults)")?;
    out.flush()
}
