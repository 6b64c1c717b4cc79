//! What of the configuration may be shown to an operator. Secrets are masked, and so is a value that is wrong: it may be a
//! secret that was pasted into another setting.

use super::{
    BrokerArgs, BrokerConfig, DatabaseAddress, DatabaseArgs, Faults, GatewayArgs, WorkerArgs, libpq,
    secret_file::{SECRET_SETTINGS, WRONG},
};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::fmt::Write as _;

const MASKED: &str = "[masked]";

/// The configuration of a process, as it may be shown.
#[derive(Debug)]
pub(crate) struct ShownConfig {
    /// Not empty for a configuration that the process would refuse.
    pub(crate) faults: Faults,
    database: Option<String>,
    broker: Option<String>,
}

impl ShownConfig {
    pub(crate) fn of_worker(args: &WorkerArgs) -> Self {
        let mut faults = Faults::default();
        // The faults are what counts.
        let _ = args.read(&mut faults);
        Self::new(faults, &args.database, &args.broker)
    }

    pub(crate) fn of_gateway(args: &GatewayArgs) -> Self {
        let mut faults = Faults::default();
        let _ = args.read(&mut faults);
        Self::new(faults, &args.database, &args.broker)
    }

    fn new(faults: Faults, database: &DatabaseArgs, broker: &BrokerArgs) -> Self {
        let database = database.check(&mut Faults::default());
        let broker = broker.check(&mut Faults::default());
        Self {
            faults,
            database: database.map(|database| database_without_password(&database.address)),
            broker: broker.map(|broker| broker_without_password(&broker)),
        }
    }

    /// The value of a setting that is set to `given`.
    pub(crate) fn value(&self, name: &str, given: &str) -> String {
        let address = match name {
            "DATABASE_URL" => self.database.clone(),
            "AMQP_URL" => self.broker.clone(),
            _ => None,
        };
        match address {
            Some(address) => address,
            None if SECRET_SETTINGS.contains(&name) => MASKED.to_owned(),
            None if self.faults.has(name) => WRONG.to_owned(),
            None => given.trim().to_owned(),
        }
    }

    /// The default that is in force for a setting that is not set.
    pub(crate) fn default_of(&self, name: &str) -> Option<&str> {
        self.faults.defaults().get(name).map(String::as_str)
    }
}

/// libpq's variables that are set. They count where `DATABASE_URL` leaves the parameter out.
pub(crate) fn libpq_variables() -> Vec<(&'static str, String)> {
    let mask = |(name, value)| (name, if name == "PGPASSWORD" { MASKED.to_owned() } else { value });
    libpq::set_variables().map(mask).collect()
}

fn database_without_password(address: &DatabaseAddress) -> String {
    let Some(first) = address.nodes.first() else { return String::new() };
    let node = |node: &PgConnectOptions| match node.get_socket() {
        Some(socket) => format!("{}:{}", socket.display(), node.get_port()),
        None => super::service_url::host_and_port(node.get_host(), node.get_port()),
    };
    let nodes: Vec<_> = address.nodes.iter().map(node).collect();
    let mut shown = format!("postgres://{}@{}/", first.get_username(), nodes.join(","));
    let _ =
        write!(shown, "{}?sslmode={}", first.get_database().unwrap_or_default(), name(first.get_ssl_mode()));
    shown
}

const fn name(mode: PgSslMode) -> &'static str {
    match mode {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    }
}

fn broker_without_password(broker: &BrokerConfig) -> String {
    let node = |node: &lapin::uri::AMQPUri| {
        let (scheme, user) = (node.scheme.to_string(), &node.authority.userinfo.username);
        format!("{scheme}://{user}@{}/{}", super::broker_node_name(node), node.vhost.replace('/', "%2f"))
    };
    broker.nodes.iter().map(node).collect::<Vec<_>>().join(",")
}
