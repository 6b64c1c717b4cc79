//! The gateway's flags and configuration.

use super::{
    BrokerArgs, BrokerConfig, DatabaseArgs, DatabaseConfig, HttpAddrArgs, Network, PublicUrl, SecretsArgs,
    WorkerArgs,
    args::{address, is_loopback},
    console::{ConsoleArgs, ConsoleConfig},
    read::{self, Faults, nonempty},
};
use crate::masked::debug_shows;
use crate::seal::SecretsKey;
use clap::{Args, Command, FromArgMatches};
use secrecy::SecretString;
use std::{net::SocketAddr, time::Duration};

#[derive(Args, Clone, Default)]
pub struct GatewayArgs {
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub broker: BrokerArgs,
    #[command(flatten)]
    pub secrets: SecretsArgs,
    /// The Twilio-style provider of the workers; if it is on loopback, PUBLIC_URL may be left out
    #[arg(long, env = "SMS_BASE_URL", hide_env_values = true, value_name = "URL", help_heading = "Provider")]
    pub sms_base_url: Option<String>,
    /// The account's token, which signs the provider's webhooks; without it they are refused
    #[arg(
        long,
        env = "TWILIO_AUTH_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Provider"
    )]
    pub twilio_auth_token: Option<String>,
    #[command(flatten)]
    pub http: GatewayHttpArgs,
    #[command(flatten, next_help_heading = "Gateway")]
    pub operators: HttpAddrArgs,
    #[command(flatten)]
    pub console: ConsoleArgs,
}

debug_shows!(GatewayArgs { http });

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Gateway")]
pub struct GatewayHttpArgs {
    /// Where the gateway answers [default: 127.0.0.1:8080]
    #[arg(long, env = "GATEWAY_ADDR", hide_env_values = true, value_name = "ADDR")]
    pub gateway_addr: Option<String>,
    /// How long the gateway waits for an invite's reply; then it answers 504, and the invite continues [default: 30s]
    #[arg(long, env = "GATEWAY_TIMEOUT", hide_env_values = true, value_name = "DURATION")]
    pub gateway_timeout: Option<String>,
    /// Requests in flight at most; more are answered 503 [default: 4096]
    #[arg(long, env = "GATEWAY_CONCURRENCY", hide_env_values = true, value_name = "N")]
    pub gateway_concurrency: Option<String>,
    /// Invites that may wait in the queue; while there are more, new ones are answered 503 [default: 10000]
    #[arg(long, env = "GATEWAY_BACKLOG", hide_env_values = true, value_name = "N")]
    pub gateway_backlog: Option<String>,
    /// Web pages that may send requests from a browser: origins such as https://app.example, with commas, or *
    /// [default: none]
    #[arg(long, env = "GATEWAY_CORS_ORIGINS", hide_env_values = true, value_name = "ORIGIN[,ORIGIN]")]
    pub gateway_cors_origins: Option<String>,
    /// Proxies whose X-Forwarded-For is believed: addresses or networks such as 10.0.0.0/8, with commas [default: none]
    #[arg(long, env = "TRUSTED_PROXIES", hide_env_values = true, value_name = "ADDR[,ADDR]")]
    pub trusted_proxies: Option<String>,
    /// How long a stopping gateway may take to finish the requests in flight [default: 25s]
    #[arg(long, env = "SHUTDOWN_GRACE", hide_env_values = true, value_name = "DURATION")]
    pub shutdown_grace: Option<String>,
}

/// Everything that the gateway needs, checked.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    pub database: DatabaseConfig,
    pub broker: BrokerConfig,
    pub secrets_key: SecretsKey,
    pub public_url: PublicUrl,
    pub twilio_auth_token: Option<SecretString>,
    pub http: GatewayHttp,
    /// Where `/healthz`, `/readyz` and `/metrics` answer.
    pub http_addr: SocketAddr,
    pub shutdown_grace: Duration,
    /// `None` if there is no console.
    pub console: Option<ConsoleConfig>,
}

/// How the gateway accepts requests.
#[derive(Debug, Clone)]
pub struct GatewayHttp {
    pub addr: SocketAddr,
    pub timeout: Duration,
    pub concurrency: usize,
    pub backlog: u64,
    pub cors_origins: Vec<String>,
    pub trusted_proxies: Vec<Network>,
}

impl GatewayArgs {
    /// The arguments of a gateway with a worker's settings; for `doctor`. What only a gateway has is as the environment has it.
    pub(crate) fn beside(worker: &WorkerArgs) -> Self {
        let matches = Self::augment_args(Command::new("gateway")).try_get_matches_from(["gateway"]);
        let own = matches.ok().and_then(|matches| Self::from_arg_matches(&matches).ok()).unwrap_or_default();
        Self {
            database: worker.database.clone(),
            broker: worker.broker.clone(),
            secrets: worker.secrets.clone(),
            sms_base_url: worker.provider.sms_base_url.clone(),
            twilio_auth_token: worker.provider.twilio_auth_token.clone(),
            // On one machine a gateway with the worker's address works without it.
            operators: HttpAddrArgs::default(),
            http: own.http,
            console: own.console,
        }
    }

    /// The gateway's configuration, or every fault in it.
    pub fn check(&self) -> Result<GatewayConfig, Faults> {
        let mut faults = Faults::default();
        let config = self.read(&mut faults);
        faults.finish(config)
    }

    pub(super) fn read(&self, faults: &mut Faults) -> Option<GatewayConfig> {
        let database = self.database.check(faults);
        let broker = self.broker.check(faults);
        let provider =
            faults.read("SMS_BASE_URL", self.sms_base_url.as_ref(), "https://api.twilio.com", read::base_url);
        let local = nonempty(self.sms_base_url.as_ref()).is_some_and(is_loopback);
        let because = "links lead there; it may be left out only when SMS_BASE_URL is on loopback";
        let public_url = self.secrets.check_public_url(faults, (!local).then_some(because));
        let grace_within = read::duration_within(Duration::ZERO, Duration::from_hours(1));
        let grace = faults.read("SHUTDOWN_GRACE", self.http.shutdown_grace.as_ref(), "25s", grace_within);
        let secrets_key = self.secrets.check_key(faults);
        let http = self.http.read(faults);
        let http_addr = self.operators.check(faults);
        // With a fault in TRUSTED_PROXIES, it is not known whether there are proxies.
        let has_proxies = http.as_ref().is_none_or(|http| {
            !http.trusted_proxies.is_empty() && !http.trusted_proxies.iter().any(Network::is_everything)
        });
        let console = self.console.check(faults, has_proxies);
        if let (Some(http), Some(operators)) = (&http, http_addr)
            && is_same(http.addr, operators)
        {
            let operators = if self.operators.is_given() { "HTTP_ADDR" } else { "HTTP_ADDR's default" };
            let what = format!("is the address of {operators} too; give each its own port");
            faults.add("GATEWAY_ADDR", what);
        }
        let token = faults.secret("TWILIO_AUTH_TOKEN", self.twilio_auth_token.as_ref());
        provider?;
        Some(GatewayConfig {
            database: database?,
            broker: broker?,
            secrets_key: secrets_key?,
            public_url: public_url?,
            twilio_auth_token: token?.map(SecretString::from),
            http: http?,
            http_addr: http_addr?,
            shutdown_grace: grace?,
            console: console?,
        })
    }
}

impl GatewayHttpArgs {
    fn read(&self, faults: &mut Faults) -> Option<GatewayHttp> {
        let addr = faults.read("GATEWAY_ADDR", self.gateway_addr.as_ref(), "127.0.0.1:8080", address("8080"));
        let timeout_within = read::duration_within(Duration::from_millis(100), Duration::from_mins(10));
        let timeout = faults.read("GATEWAY_TIMEOUT", self.gateway_timeout.as_ref(), "30s", timeout_within);
        let raw = self.gateway_concurrency.as_ref();
        let concurrency = faults.read("GATEWAY_CONCURRENCY", raw, "4096", read::whole(1, 65_535));
        let raw = self.gateway_backlog.as_ref();
        let backlog = faults.read("GATEWAY_BACKLOG", raw, "10000", read::whole(1, 1_000_000_000));
        let raw = self.gateway_cors_origins.as_ref();
        let cors_origins = faults.read("GATEWAY_CORS_ORIGINS", raw, "", list(origin));
        let raw = self.trusted_proxies.as_ref();
        let trusted_proxies = faults.read("TRUSTED_PROXIES", raw, "", list(Network::parse));
        Some(GatewayHttp {
            addr: addr?,
            timeout: timeout?,
            concurrency: usize::try_from(concurrency?).ok()?,
            backlog: backlog?,
            cors_origins: cors_origins?,
            trusted_proxies: trusted_proxies?,
        })
    }
}

/// Whether the process cannot listen on both addresses. Port 0 is any free port; `[::]` covers all addresses, those of IPv4
/// too.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: SocketAddr, one: SocketAddr| {
        all.ip().is_unspecified() && (all.is_ipv6() || one.ip().to_canonical().is_ipv4())
    };
    let same_ip = one.ip().to_canonical() == other.ip().to_canonical();
    one.port() != 0 && one.port() == other.port() && (same_ip || covers(one, other) || covers(other, one))
}

/// A list with commas, which may be empty.
fn list<T>(one: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Vec<T>, String> {
    move |text| text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(&one).collect()
}

/// An origin as a browser writes it in `Origin`: scheme, host, and the port unless it is the scheme's default.
fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let wrong = || "must be * or an origin such as https://app.example".to_owned();
    let url = url::Url::parse(text).map_err(|_| wrong())?;
    let origin = url.origin().ascii_serialization();
    let plain =
        matches!(url.scheme(), "http" | "https") && text.trim_end_matches('/').eq_ignore_ascii_case(&origin);
    plain.then_some(origin).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_addresses_are_the_same_if_a_process_cannot_listen_on_both() {
        let cases = [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "0.0.0.0:1", true),
            ("[::]:1", "127.0.0.1:1", true),
            ("[::]:1", "0.0.0.0:1", true),
            ("[::1]:1", "[::]:1", true),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("0.0.0.0:1", "0.0.0.0:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("0.0.0.0:1", "[::1]:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:0", "127.0.0.1:0", false),
        ];
        for (one, other, same) in cases {
            assert_eq!(is_same(one.parse().unwrap(), other.parse().unwrap()), same, "{one} {other}");
        }
    }

    #[test]
    fn origins_are_as_browsers_write_them() {
        let origins = list(origin);
        assert_eq!(
            origins("https://a.example, http://b:8080/ ,").unwrap(),
            ["https://a.example", "http://b:8080"]
        );
        assert_eq!(origins("HTTPS://A.example").unwrap(), ["https://a.example"]);
        assert!(origins("").unwrap().is_empty() && origins("*").is_ok());
        for bad in ["a.example", "https://a.example/x", "ftp://a", "null"] {
            assert!(origins(bad).is_err(), "{bad}");
        }
    }
}
