//! The only reader of the environment. Every variable has a flag of the same name. All faults are listed together, before
//! anything starts.

mod amqp_url;
mod args;
mod console;
mod database_url;
mod dotenv;
mod from_number;
mod gateway;
mod libpq;
pub(crate) mod log_filter;
mod misspelt;
mod network;
mod pgpass;
mod read;
mod reply_to;
mod secret_file;
mod service_url;
mod shown;
mod traces;

pub(crate) use amqp_url::name as broker_node_name;
pub(crate) use args::{
    BrokerArgs, DatabaseArgs, HttpAddrArgs, LogArgs, ProviderArgs, RetentionArgs, SecretsArgs, WorkerArgs,
};
pub(crate) use console::ConsoleConfig;
pub(crate) use database_url::{DatabaseAddress, TargetNode};
pub(crate) use dotenv::DotEnv;
pub(crate) use from_number::{FromNumberArgs, from_number};
pub(crate) use gateway::{GatewayArgs, GatewayConfig};
pub(crate) use libpq::take_libpq_variables;
pub(crate) use misspelt::{MisspeltSetting, misspelt_settings};
pub(crate) use network::Network;
pub(crate) use read::Faults;
pub(crate) use reply_to::ReplyToAllow;
pub(crate) use secret_file::{SECRET_SETTINGS, is_from_file, read_secret_files, secret_files};
pub(crate) use shown::{ShownConfig, libpq_variables};
pub(crate) use traces::{Sampler, TracesArgs, TracesConfig};

use crate::seal::SecretsKey;
use lapin::uri::AMQPUri;
use secrecy::SecretString;
use std::{fmt, net::SocketAddr, time::Duration};

/// Where the database is, and how many connections may be open to it.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    pub address: DatabaseAddress,
    pub max_connections: u32,
}

/// Where the broker is, and the prefix of the queues' names.
#[derive(Clone)]
pub struct BrokerConfig {
    /// One for each node, at least one.
    pub nodes: Vec<AMQPUri>,
    pub queue_prefix: String,
}

/// Without the logins, which lapin's own `Debug` would show.
impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("nodes", &self.nodes.iter().map(broker_node_name).collect::<Vec<_>>())
            .field("queue_prefix", &self.queue_prefix)
            .finish_non_exhaustive()
    }
}

/// What a text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromNumber {
    /// A number in E.164, or another `From` that the provider takes.
    Number(String),
    MessagingService(String),
}

impl FromNumber {
    /// As the tables of limits and opt-outs have it.
    pub fn as_str(&self) -> &str {
        let (Self::Number(name) | Self::MessagingService(name)) = self;
        name
    }
}

/// The provider's account, and the limits of the requests to it.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// Without a trailing slash.
    pub base_url: String,
    pub account_sid: String,
    /// `AC…` with its token, or `SK…` with its secret.
    pub user: String,
    pub password: SecretString,
    pub from_number: FromNumber,
    pub timeout: Duration,
    pub concurrency: usize,
    /// Texts from one From number in a second; `None` for no limit.
    pub per_second: Option<f64>,
    pub max_attempts: u32,
    pub settle: Duration,
    pub when_unsure: WhenUnsure,
}

/// What to do about a text that may have gone out (contract, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum WhenUnsure {
    Look,
    Fail,
    Resend,
}

/// The address that links and callbacks begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    /// Without a trailing slash.
    pub base: String,
    /// Whether the provider is given callback addresses: only when `PUBLIC_URL` is set.
    pub callbacks: bool,
}

/// How old an invite may be.
#[derive(Debug, Clone, Copy)]
pub struct AgeLimits {
    /// `INVITE_MAX_AGE`.
    pub max_age: Duration,
    /// `INVITE_REQUIRE_TIMESTAMP`: a request without a `timestamp` is refused.
    pub require_timestamp: bool,
}

/// Everything that the worker needs, checked.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    pub database: DatabaseConfig,
    pub broker: BrokerConfig,
    pub prefetch: u16,
    pub reply_to_allow: ReplyToAllow,
    pub provider: ProviderConfig,
    pub age: AgeLimits,
    pub retention: Duration,
    pub shutdown_grace: Duration,
    pub secrets_key: SecretsKey,
    pub public_url: PublicUrl,
    pub http_addr: SocketAddr,
    /// `None` for no traces.
    pub traces: Option<TracesConfig>,
}
