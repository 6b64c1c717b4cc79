//! The flags, each with its variable, as raw text. `check` turns them into the configuration.

use super::{
    AgeLimits, BrokerConfig, DatabaseConfig, FromNumber, ProviderConfig, PublicUrl, ReplyToAllow, TracesArgs,
    WhenUnsure, WorkerConfig, amqp_url, database_url,
    from_number::number_or_name,
    libpq,
    read::{self, Faults, nonempty},
};
use crate::masked::debug_shows;
use crate::seal::SecretsKey;
use clap::Args;
use secrecy::SecretString;
use std::{net::SocketAddr, sync::Once, time::Duration};

const LOOPBACK_PUBLIC_URL: &str = "http://127.0.0.1:8080";
const DAY: Duration = Duration::from_hours(24);

#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// PostgreSQL 13 or later, such as postgres://user:password@host:5432/database; several nodes are several hosts with
    /// commas (@h1:5432,h2:5432/), and the one that takes writes is used
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// Connections to the database at most [default: 10]
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", hide_env_values = true, global = true, value_name = "N")]
    pub database_max_connections: Option<String>,
}

debug_shows!(DatabaseArgs { database_max_connections });

#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Broker")]
pub struct BrokerArgs {
    /// RabbitMQ 3.10 or later, such as amqp://user:password@host:5672/%2f; several nodes are several URLs with commas
    #[arg(long, env = "AMQP_URL", hide_env_values = true, global = true, value_name = "URL")]
    pub amqp_url: Option<String>,
    /// What the names of the queues begin with [default: session-invite]
    #[arg(long, env = "QUEUE_PREFIX", hide_env_values = true, global = true, value_name = "NAME")]
    pub queue_prefix: Option<String>,
}

debug_shows!(BrokerArgs { queue_prefix });

#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Secrets and links")]
pub struct SecretsArgs {
    /// 32 bytes in base64 (`openssl rand -base64 32`); several with commas: the first seals, all open
    #[arg(long, env = "SECRETS_KEY", hide_env_values = true, global = true, value_name = "KEY[,KEY]")]
    pub secrets_key: Option<String>,
    /// Where visitors reach the gateway, for links and callbacks
    #[arg(long, env = "PUBLIC_URL", hide_env_values = true, global = true, value_name = "URL")]
    pub public_url: Option<String>,
}

debug_shows!(SecretsArgs { public_url });

#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Provider")]
pub struct ProviderArgs {
    /// The Twilio-style provider [default: https://api.twilio.com]
    #[arg(long, env = "SMS_BASE_URL", hide_env_values = true, value_name = "URL")]
    pub sms_base_url: Option<String>,
    /// The account, in the path of each request
    #[arg(long, env = "TWILIO_ACCOUNT_SID", hide_env_values = true, value_name = "AC…")]
    pub twilio_account_sid: Option<String>,
    /// The account's token
    #[arg(long, env = "TWILIO_AUTH_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub twilio_auth_token: Option<String>,
    /// An API key, instead of the account's token
    #[arg(long, env = "TWILIO_API_KEY", hide_env_values = true, value_name = "SK…")]
    pub twilio_api_key: Option<String>,
    /// The API key's secret
    #[arg(long, env = "TWILIO_API_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub twilio_api_secret: Option<String>,
    /// The number that texts come from
    #[arg(long, env = "SMS_FROM", hide_env_values = true, value_name = "+1…")]
    pub sms_from: Option<String>,
    /// A messaging service that texts come from, instead of a number
    #[arg(long, env = "SMS_MESSAGING_SERVICE_SID", hide_env_values = true, value_name = "MG…")]
    pub sms_messaging_service_sid: Option<String>,
    /// How long one request to the provider may take [default: 10s]
    #[arg(long, env = "SMS_TIMEOUT", hide_env_values = true, value_name = "DURATION")]
    pub sms_timeout: Option<String>,
    /// Requests to the provider at a time [default: 256]
    #[arg(long, env = "SMS_CONCURRENCY", hide_env_values = true, value_name = "N")]
    pub sms_concurrency: Option<String>,
    /// Texts a second from one From number, by all workers together, such as 1 or 0.5; more wait for their turn
    #[arg(long, env = "SMS_PER_SECOND", hide_env_values = true, value_name = "N")]
    pub sms_per_second: Option<String>,
    /// Tries for one text at most [default: 5]
    #[arg(long, env = "SMS_MAX_ATTEMPTS", hide_env_values = true, value_name = "N")]
    pub sms_max_attempts: Option<String>,
    /// How long the provider's list may lag behind what it accepted [default: 30s]
    #[arg(long, env = "SMS_SETTLE", hide_env_values = true, value_name = "DURATION")]
    pub sms_settle: Option<String>,
    /// What to do when a text may have gone out and the provider's list does not show it: look, fail or
    /// resend [default: look]
    #[arg(long, env = "SMS_WHEN_UNSURE", hide_env_values = true, value_name = "WHAT")]
    pub sms_when_unsure: Option<String>,
}

debug_shows!(ProviderArgs { sms_base_url, twilio_account_sid });

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// What is logged, such as info, or warn,session_invite=debug [default: info]
    #[arg(long, env = "RUST_LOG", hide_env_values = true, value_name = "FILTER", global = true)]
    pub rust_log: Option<String>,
    /// text or json [default: text]
    #[arg(long, env = "LOG_FORMAT", hide_env_values = true, value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct WorkerArgs {
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub broker: BrokerArgs,
    #[command(flatten)]
    pub provider: ProviderArgs,
    #[command(flatten)]
    pub secrets: SecretsArgs,
    /// Invites in flight at most; unless it is set, twice SMS_CONCURRENCY where that is more [default: 1000]
    #[arg(long, env = "PREFETCH", hide_env_values = true, value_name = "N", help_heading = "Worker")]
    pub prefetch: Option<String>,
    /// Queues that a reply may go to: names with * for any characters, with commas [default: *]
    #[arg(
        long,
        env = "REPLY_TO_ALLOW",
        hide_env_values = true,
        value_name = "PATTERN",
        help_heading = "Worker"
    )]
    pub reply_to_allow: Option<String>,
    /// An invite older than this is not texted [default: 10m]
    #[arg(
        long,
        env = "INVITE_MAX_AGE",
        hide_env_values = true,
        value_name = "DURATION",
        help_heading = "Worker"
    )]
    pub invite_max_age: Option<String>,
    /// Refuse an invite without a timestamp, as its age is unknown [default: false]
    #[arg(long, env = "INVITE_REQUIRE_TIMESTAMP", hide_env_values = true, value_name = "BOOL", help_heading = "Worker",
          num_args = 0..=1, default_missing_value = "true")]
    pub invite_require_timestamp: Option<String>,
    #[command(flatten, next_help_heading = "Worker")]
    pub retention: RetentionArgs,
    /// How long a stopping worker may take to finish the invites in flight [default: 25s]
    #[arg(
        long,
        env = "SHUTDOWN_GRACE",
        hide_env_values = true,
        value_name = "DURATION",
        help_heading = "Worker"
    )]
    pub shutdown_grace: Option<String>,
    #[command(flatten, next_help_heading = "Worker")]
    pub http: HttpAddrArgs,
    #[command(flatten)]
    pub traces: TracesArgs,
}

#[derive(Args, Clone, Debug, Default)]
pub struct RetentionArgs {
    /// How long ended sessions are kept, 1 day to 100 years [default: 2y]
    #[arg(long, env = "RETENTION", hide_env_values = true, value_name = "DURATION")]
    pub retention: Option<String>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct HttpAddrArgs {
    /// Where /healthz, /readyz and /metrics answer [default: 127.0.0.1:9464]
    #[arg(long, env = "HTTP_ADDR", hide_env_values = true, value_name = "ADDR")]
    pub http_addr: Option<String>,
}

impl DatabaseArgs {
    pub fn check(&self, faults: &mut Faults) -> Option<DatabaseConfig> {
        static WARNED: Once = Once::new();
        let hint = "such as postgres://user:password@127.0.0.1:5432/session_invite";
        let address = faults.required("DATABASE_URL", self.database_url.as_ref(), hint).and_then(|url| {
            match database_url::parse(&url, libpq::variable) {
                Ok(address) => Some(address),
                Err(fault) => {
                    faults.add(fault.variable, fault.what);
                    None
                }
            }
        });
        let raw = self.database_max_connections.as_ref();
        let max = faults.read("DATABASE_MAX_CONNECTIONS", raw, "10", read::whole(2, 1_000));
        let (address, ignored) = address?;
        warn_of_ignored("DATABASE_URL", &ignored, &WARNED);
        Some(DatabaseConfig { address, max_connections: u32::try_from(max?).ok()? })
    }
}

impl BrokerArgs {
    pub fn check(&self, faults: &mut Faults) -> Option<BrokerConfig> {
        static WARNED: Once = Once::new();
        let hint = "such as amqp://user:password@127.0.0.1:5672/%2f";
        let nodes = faults
            .required("AMQP_URL", self.amqp_url.as_ref(), hint)
            .and_then(|url| faults.read("AMQP_URL", Some(&url), "", amqp_url::parse));
        let prefix = faults.read("QUEUE_PREFIX", self.queue_prefix.as_ref(), "session-invite", queue_prefix);
        let (nodes, ignored) = nodes?;
        warn_of_ignored("AMQP_URL", &ignored, &WARNED);
        Some(BrokerConfig { nodes, queue_prefix: prefix? })
    }
}

/// Warns of URL parameters that other clients use, and this program ignores. It warns once in a process, because `doctor` reads
/// each URL several times.
fn warn_of_ignored(variable: &str, names: &[&str], warned: &Once) {
    if !names.is_empty() {
        let names = names.join(", ");
        warned.call_once(|| {
            tracing::warn!(variable, parameters = names, "parameters of the URL are ignored");
        });
    }
}

impl SecretsArgs {
    /// The key, for a command that needs no other setting.
    pub fn key(&self) -> Result<SecretsKey, Faults> {
        let mut faults = Faults::default();
        let key = self.check_key(&mut faults);
        faults.finish(key)
    }

    /// The public URL, for a command that only writes templates.
    pub fn public_url(&self) -> Result<PublicUrl, Faults> {
        let mut faults = Faults::default();
        let url = self.check_public_url(&mut faults, None);
        faults.finish(url)
    }

    pub(super) fn check_key(&self, faults: &mut Faults) -> Option<SecretsKey> {
        let hint = "make one with `openssl rand -base64 32`, and keep it: it opens the groups' keys";
        let key = faults.required("SECRETS_KEY", self.secrets_key.as_ref(), hint)?;
        faults.read("SECRETS_KEY", Some(&key), "", SecretsKey::parse)
    }

    /// The public URL. `required_because` is the reason for the fault when it must be set and is not.
    pub(super) fn check_public_url(
        &self,
        faults: &mut Faults,
        required_because: Option<&str>,
    ) -> Option<PublicUrl> {
        match (nonempty(self.public_url.as_ref()), required_because) {
            (Some(_), _) => {
                let base = faults.read("PUBLIC_URL", self.public_url.as_ref(), "", read::base_url)?;
                Some(PublicUrl { base, callbacks: true })
            }
            (None, None) => {
                faults.note_default("PUBLIC_URL", LOOPBACK_PUBLIC_URL);
                Some(PublicUrl { base: LOOPBACK_PUBLIC_URL.to_owned(), callbacks: false })
            }
            (None, Some(because)) => {
                faults.add("PUBLIC_URL", format_args!("is not set; {because}"));
                None
            }
        }
    }
}

impl ProviderArgs {
    /// The account's id, and the user and password of its requests: the account's token, or an API key.
    fn check_login(&self, faults: &mut Faults) -> Option<(String, String, SecretString)> {
        let hint = "the account's id at the provider, AC…";
        let account = faults.required("TWILIO_ACCOUNT_SID", self.twilio_account_sid.as_ref(), hint);
        if account.as_deref().is_some_and(|sid| !sid.bytes().all(|b| b.is_ascii_alphanumeric())) {
            faults.add("TWILIO_ACCOUNT_SID", "must be letters and digits only, such as AC…");
        }
        let key = faults.secret("TWILIO_API_KEY", self.twilio_api_key.as_ref());
        let secret = faults.secret("TWILIO_API_SECRET", self.twilio_api_secret.as_ref());
        let token = faults.secret("TWILIO_AUTH_TOKEN", self.twilio_auth_token.as_ref());
        let (user, password) = match (key?, secret?, token?) {
            (Some(key), Some(secret), _) => (Some(key.to_owned()), secret.to_owned()),
            (None, None, Some(token)) => (account.clone(), token.to_owned()),
            (None, None, None) => {
                faults.add("TWILIO_AUTH_TOKEN", "is not set; or set TWILIO_API_KEY and TWILIO_API_SECRET");
                return None;
            }
            _ => {
                faults.add("TWILIO_API_KEY", "and TWILIO_API_SECRET go together; only one is set");
                return None;
            }
        };
        Some((account?, user?, password.into()))
    }

    fn check_from_number(&self, faults: &mut Faults) -> Option<FromNumber> {
        let service = nonempty(self.sms_messaging_service_sid.as_ref());
        match (nonempty(self.sms_from.as_ref()), service) {
            (Some(_), None) => {
                faults.read("SMS_FROM", self.sms_from.as_ref(), "", number_or_name).map(FromNumber::Number)
            }
            (None, Some(sid)) if sid.starts_with("MG") && sid.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                Some(FromNumber::MessagingService(sid.to_owned()))
            }
            (None, Some(_)) => {
                faults.add("SMS_MESSAGING_SERVICE_SID", "must be MG and letters and digits");
                None
            }
            (None, None) => {
                faults.add("SMS_FROM", "is not set; or set SMS_MESSAGING_SERVICE_SID");
                None
            }
            (Some(_), Some(_)) => {
                faults.add("SMS_FROM", "and SMS_MESSAGING_SERVICE_SID are both set; keep one");
                None
            }
        }
    }

    pub fn check(&self, faults: &mut Faults) -> Option<ProviderConfig> {
        let base_url =
            faults.read("SMS_BASE_URL", self.sms_base_url.as_ref(), "https://api.twilio.com", read::base_url);
        let login = self.check_login(faults);
        let from_number = self.check_from_number(faults);
        let seconds = Duration::from_secs;
        let timeout_within = read::duration_within(Duration::from_millis(100), seconds(300));
        let timeout = faults.read("SMS_TIMEOUT", self.sms_timeout.as_ref(), "10s", timeout_within);
        let concurrency =
            faults.read("SMS_CONCURRENCY", self.sms_concurrency.as_ref(), "256", read::whole(1, 65_535));
        let per_second = nonempty(self.sms_per_second.as_ref()).map(|rate| {
            faults.read("SMS_PER_SECOND", Some(&rate.to_owned()), "", read::decimal(0.001, 10_000.0))
        });
        let attempts =
            faults.read("SMS_MAX_ATTEMPTS", self.sms_max_attempts.as_ref(), "5", read::whole(1, 20));
        let settle_within = read::duration_within(Duration::ZERO, seconds(3_600));
        let settle = faults.read("SMS_SETTLE", self.sms_settle.as_ref(), "30s", settle_within);
        let unsure = faults.read("SMS_WHEN_UNSURE", self.sms_when_unsure.as_ref(), "look", when_unsure);
        let (account_sid, user, password) = login?;
        Some(ProviderConfig {
            base_url: base_url?,
            account_sid,
            user,
            password,
            from_number: from_number?,
            timeout: timeout?,
            concurrency: usize::try_from(concurrency?).ok()?,
            per_second: match per_second {
                Some(rate) => Some(rate?),
                None => None,
            },
            max_attempts: u32::try_from(attempts?).ok()?,
            settle: settle?,
            when_unsure: unsure?,
        })
    }
}

impl RetentionArgs {
    pub fn check(&self, faults: &mut Faults) -> Option<Duration> {
        let within = read::duration_within(DAY, 36_525 * DAY);
        faults.read("RETENTION", self.retention.as_ref(), "2y", within)
    }
}

impl HttpAddrArgs {
    pub(super) fn check(&self, faults: &mut Faults) -> Option<SocketAddr> {
        faults.read("HTTP_ADDR", self.http_addr.as_ref(), "127.0.0.1:9464", address("9464"))
    }

    pub fn is_given(&self) -> bool {
        nonempty(self.http_addr.as_ref()).is_some()
    }

    /// The address, for a command that queries a worker.
    pub fn read(&self) -> Result<SocketAddr, Faults> {
        let mut faults = Faults::default();
        let addr = self.check(&mut faults);
        faults.finish(addr)
    }
}

impl WorkerArgs {
    /// The worker's configuration, or every fault in it.
    pub fn check(&self) -> Result<WorkerConfig, Faults> {
        let mut faults = Faults::default();
        let config = self.read(&mut faults);
        faults.finish(config)
    }

    pub(super) fn read(&self, faults: &mut Faults) -> Option<WorkerConfig> {
        let database = self.database.check(faults);
        let broker = self.broker.check(faults);
        let allow = faults.read("REPLY_TO_ALLOW", self.reply_to_allow.as_ref(), "*", ReplyToAllow::parse);
        let provider = self.provider.check(faults);
        let enough = prefetch_for(provider.as_ref().map_or(0, |provider| provider.concurrency)).to_string();
        let prefetch = faults.read("PREFETCH", self.prefetch.as_ref(), &enough, read::whole(1, 65_535));
        // By the URL alone, so that this fault is listed together with any others of the provider.
        let local = nonempty(self.provider.sms_base_url.as_ref()).is_some_and(is_loopback);
        let because =
            "links and callbacks lead there; it may be left out only when SMS_BASE_URL is on loopback";
        let public_url = self.secrets.check_public_url(faults, (!local).then_some(because));
        let age_within = read::duration_within(Duration::from_secs(1), 365 * DAY);
        let max_age = faults.read("INVITE_MAX_AGE", self.invite_max_age.as_ref(), "10m", age_within);
        let require = self.invite_require_timestamp.as_ref();
        let require_timestamp = faults.read("INVITE_REQUIRE_TIMESTAMP", require, "false", read::truth);
        let retention = self.retention.check(faults);
        let grace_within = read::duration_within(Duration::ZERO, Duration::from_hours(1));
        let grace = faults.read("SHUTDOWN_GRACE", self.shutdown_grace.as_ref(), "25s", grace_within);
        let secrets_key = self.secrets.check_key(faults);
        let http_addr = self.http.check(faults);
        let traces = self.traces.check(faults);
        Some(WorkerConfig {
            database: database?,
            broker: broker?,
            prefetch: u16::try_from(prefetch?).ok()?,
            reply_to_allow: allow?,
            provider: provider?,
            age: AgeLimits { max_age: max_age?, require_timestamp: require_timestamp? },
            retention: retention?,
            shutdown_grace: grace?,
            secrets_key: secrets_key?,
            public_url: public_url?,
            http_addr: http_addr?,
            traces: traces?,
        })
    }
}

/// Twice the number of requests to the provider: while one half of the messages waits there, the other half is before or
/// after that step.
fn prefetch_for(concurrency: usize) -> usize {
    (2 * concurrency).clamp(1_000, 65_535)
}

fn queue_prefix(text: &str) -> Result<String, String> {
    // A queue's name is a short string of 255 bytes; the longest suffix is `.unreadable`.
    let shaped = text.len() <= 200 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
    if !shaped {
        return Err("must be 1 to 200 letters, digits, dashes, dots, colons or underscores".to_owned());
    }
    if text.starts_with("amq.") {
        return Err("must not begin with `amq.`, which the broker keeps for itself".to_owned());
    }
    Ok(text.to_owned())
}

fn when_unsure(text: &str) -> Result<WhenUnsure, &'static str> {
    text.parse().map_err(|_| "must be look, fail or resend")
}

/// An address to listen on; `port` is the default one, for the error.
pub(super) fn address(port: &str) -> impl Fn(&str) -> Result<SocketAddr, String> {
    move |text| {
        let wrong = |_| format!("must be an address and a port, such as 127.0.0.1:{port}");
        text.parse().map_err(wrong)
    }
}

pub(super) fn is_loopback(base_url: &str) -> bool {
    match url::Url::parse(base_url).ok().as_ref().and_then(url::Url::host) {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
