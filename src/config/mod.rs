//! The only reader of the environment. Every variable has a flag of the same name; every fault is
//! listed, all of them together, before anything starts.

mod amqp_url;
mod args;
mod database_url;
mod dotenv;
mod gateway;
mod libpq;
pub mod log_filter;
mod network;
mod pgpass;
mod read;
mod reply_to;
mod sender;
mod service_url;

pub use args::{BrokerArgs, DatabaseArgs, HttpAddrArgs, LogArgs, ProviderArgs, SecretsArgs, WorkerArgs};
pub use database_url::{DatabaseAddress, TargetNode};
pub use dotenv::{DotEnv, DotEnvError};
pub use gateway::{GatewayArgs, GatewayConfig, GatewayHttp};
pub use libpq::take_libpq_variables;
pub use network::Network;
pub use read::Faults;
pub use reply_to::ReplyToAllow;
pub use sender::{OwnSenderArgs, sender_name};

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

/// Where the broker is, and what this installation's queues are called.
#[derive(Clone)]
pub struct BrokerConfig {
    /// One for each node, at least one.
    pub nodes: Vec<AMQPUri>,
    pub queue_prefix: String,
}

/// Without the logins, which lapin's own would show.
impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = |uri: &AMQPUri| format!("{}:{}", uri.authority.host, uri.authority.port);
        f.debug_struct("BrokerConfig")
            .field("nodes", &self.nodes.iter().map(node).collect::<Vec<_>>())
            .field("queue_prefix", &self.queue_prefix)
            .finish_non_exhaustive()
    }
}

/// Whom a text is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// A number in E.164, or another `From` that the provider takes.
    Number(String),
    MessagingService(String),
}

impl Sender {
    /// As it stands in the tables of limits and opt-outs.
    pub fn as_str(&self) -> &str {
        let (Self::Number(name) | Self::MessagingService(name)) = self;
        name
    }
}

/// The provider's account, and how long and how often it is asked.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// Without a trailing slash.
    pub base_url: String,
    pub account_sid: String,
    /// `AC…` with its token, or `SK…` with its secret.
    pub user: String,
    pub password: SecretString,
    pub sender: Sender,
    pub timeout: Duration,
    pub concurrency: usize,
    /// Texts of one sender in a second; `None` for as fast as they come.
    pub per_second: Option<f64>,
    pub max_attempts: u32,
    pub settle: Duration,
    pub when_unsure: WhenUnsure,
}

/// What to do about a text that may have gone out (contract, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenUnsure {
    Look,
    Fail,
    Resend,
}

/// Where links and callbacks lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    /// Without a trailing slash.
    pub base: String,
    /// Whether the provider can reach it: only when it was given.
    pub callbacks: bool,
}

/// How old an invite may be.
#[derive(Debug, Clone, Copy)]
pub struct AgeLimits {
    pub max_age: Duration,
    pub require_timestamp: bool,
}

/// Everything that the worker needs, checked whole.
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
}
