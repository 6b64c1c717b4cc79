//! `DATABASE_URL`, read as libpq reads it (<https://www.postgresql.org/docs/current/libpq-connect.html>), and turned into
//! sqlx's options.
//!
//! sqlx's own parser is not used: it logs an unknown parameter with its value, keeps the brackets of IPv6 addresses, and
//! takes one host only.

use super::{
    pgpass::{self, Login},
    service_url::{Host, Parameter, Service, ServiceUrl, repeated_host},
};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::{collections::HashMap, ffi::OsString, fmt, path::Path, time::Duration};

const DATABASE: Service = Service {
    schemes: &["postgres", "postgresql"],
    several: "write several hosts in one URL: postgres://user:password@h1:5432,h2:5432/database",
};

/// How long one node may take to answer, when `connect_timeout` is not set.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same where there are other nodes to try.
const CONNECT_TIMEOUT_OF_SEVERAL: Duration = Duration::from_secs(3);

/// The parameters that are used, and libpq's variable for each, which counts when the URL leaves the parameter out.
pub(super) const SUPPORTED: [(&str, &str); 16] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("application_name", "PGAPPNAME"),
    ("options", "PGOPTIONS"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    // sqlx's own: how many prepared statements a connection keeps; 0 for a pooler without support for them.
    ("statement-cache-capacity", ""),
];

/// Other names of those, from sqlx and JDBC.
const ALIASES: [(&str, &str); 6] = [
    ("ssl-mode", "sslmode"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("ssl-cert", "sslcert"),
    ("ssl-key", "sslkey"),
    ("statement_cache_capacity", "statement-cache-capacity"),
];

/// The rest of libpq's parameters: accepted, ignored, and named in a warning.
const IGNORED: [&str; 39] = [
    "authtype",
    "channel_binding",
    "client_encoding",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "scram_server_key",
    "service",
    "servicefile",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
    "sslnegotiation",
    "sslpassword",
    "sslsni",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "tcp_user_timeout",
    "tty",
];

/// Which of several nodes is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetNode {
    /// The one that takes writes.
    Writes,
    /// Any that answers.
    Any,
}

/// The database's nodes, with what each connection needs.
#[derive(Clone)]
pub struct DatabaseAddress {
    /// At least one.
    pub nodes: Vec<PgConnectOptions>,
    pub target: TargetNode,
    /// For one node.
    pub connect_timeout: Duration,
    /// The server's settings from `options`, which win over ours.
    pub settings: Vec<(String, String)>,
    /// The variable that they are from.
    pub settings_from: &'static str,
}

/// Without the password, which sqlx's own `Debug` would show.
impl fmt::Debug for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<_> =
            self.nodes.iter().map(|node| format!("{}:{}", node.get_host(), node.get_port())).collect();
        f.debug_struct("DatabaseAddress")
            .field("nodes", &nodes)
            .field("target", &self.target)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// A fault, with its variable: `DATABASE_URL`, or the one of libpq's that gave the value.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {what}")]
pub(super) struct UrlFault {
    pub variable: &'static str,
    pub what: String,
}

impl From<String> for UrlFault {
    fn from(what: String) -> Self {
        Self { variable: "DATABASE_URL", what }
    }
}

/// The address, and the names of the parameters that are ignored.
pub(super) fn parse(
    text: &str,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<(DatabaseAddress, Vec<&'static str>), UrlFault> {
    let url = ServiceUrl::parse(text, &DATABASE)?;
    let mut parameters = ConnectionParameters::read(&url.parameters)?;
    let from_url = [
        ("user", url.user.clone()),
        ("password", url.password.as_ref().map(|password| password.expose_secret().to_owned())),
        ("dbname", url.path.clone().filter(|name| !name.is_empty())),
    ];
    for (name, value) in from_url {
        if let Some(value) = value {
            parameters.values.entry(name).or_insert(value);
        }
    }
    parameters.fill_in(&url, environment)?;
    let address = parameters.address(&url)?;
    Ok((address, parameters.ignored))
}

/// The parameters, by libpq's names.
struct ConnectionParameters {
    values: HashMap<&'static str, String>,
    /// The variable that a value is from, for those that are not from the URL.
    origins: HashMap<&'static str, &'static str>,
    /// sqlx's `options[name]=value`.
    options: Vec<(String, String)>,
    ignored: Vec<&'static str>,
}

impl ConnectionParameters {
    fn read(given: &[Parameter]) -> Result<Self, String> {
        let mut parameters = Self {
            values: HashMap::new(),
            origins: HashMap::new(),
            options: Vec::new(),
            ignored: Vec::new(),
        };
        for parameter in given {
            let name = parameter.name.as_str();
            let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| *name);
            let option = name.strip_prefix("options[").and_then(|rest| rest.strip_suffix(']'));
            if let Some((name, _)) = SUPPORTED.iter().find(|(supported, _)| *supported == alias) {
                parameters.values.insert(name, parameter.value.clone());
            } else if let Some(option) = option {
                parameters.options.push((option.to_owned(), parameter.value.clone()));
            } else if name == "ssl" && parameter.value == "true" {
                parameters.values.insert("sslmode", "require".to_owned());
            } else if let Some(name) = IGNORED.iter().find(|ignored| **ignored == name) {
                if !parameters.ignored.contains(name) {
                    parameters.ignored.push(name);
                }
            } else {
                return Err(parameter.unknown());
            }
        }
        parameters.values.retain(|_, value| !value.is_empty());
        let target = parameters.values.get("target_session_attrs").map(String::as_str);
        if !matches!(target, None | Some("read-write" | "any")) {
            parameters.values.remove("target_session_attrs");
            parameters.ignored.push("target_session_attrs");
        }
        Ok(parameters)
    }

    /// Takes what the URL leaves out from libpq's variables, as `psql` does.
    fn fill_in(
        &mut self,
        url: &ServiceUrl,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(), UrlFault> {
        let hosts_are_given = url.hosts.iter().any(|host| !host.name.is_empty())
            || self.values.contains_key("host")
            || self.values.contains_key("hostaddr");
        let ports_are_given = url.hosts.iter().all(|host| host.port.is_some());
        for (name, variable) in SUPPORTED.into_iter().filter(|(_, variable)| !variable.is_empty()) {
            let is_host = matches!(name, "host" | "hostaddr");
            if self.values.contains_key(name)
                || (is_host && hosts_are_given)
                || (name == "port" && ports_are_given)
                || (name == "options" && !self.options.is_empty())
            {
                continue;
            }
            if let Some(value) = environment(variable).filter(|value| !value.is_empty()) {
                let Ok(value) = value.into_string() else {
                    return Err(UrlFault { variable, what: "is not UTF-8 text".to_owned() });
                };
                if name != "password" && value.contains("://") {
                    // The value would be shown as a name, and it may hold a password.
                    let what = "holds a URL; put that into DATABASE_URL".to_owned();
                    return Err(UrlFault { variable, what });
                }
                self.values.insert(name, value);
                self.origins.insert(name, variable);
            }
        }
        // Other values of the variable are ignored.
        if !matches!(self.get("target_session_attrs"), None | Some("read-write" | "any")) {
            self.values.remove("target_session_attrs");
        }
        let home = environment("HOME").and_then(|home| Some(format!("{}/.pgpass", home.into_string().ok()?)));
        if let Some(file) = home.filter(|_| !self.values.contains_key("passfile")) {
            self.values.insert("passfile", file);
        }
        Ok(())
    }

    /// The fault of a value, with the variable that it is from.
    fn wrong(&self, name: &str, what: impl fmt::Display) -> UrlFault {
        match self.origins.get(name) {
            Some(variable) => UrlFault { variable, what: what.to_string() },
            None => format!("has a wrong {name}: it {what}").into(),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn address(&self, url: &ServiceUrl) -> Result<DatabaseAddress, UrlFault> {
        let hosts = self.hosts(url)?;
        let target = match (self.get("target_session_attrs"), hosts.len()) {
            (Some("read-write"), _) | (None, 2..) => TargetNode::Writes,
            _ => TargetNode::Any,
        };
        let connect_timeout = match self.get("connect_timeout").map(str::parse::<i32>) {
            None | Some(Ok(..=0)) if hosts.len() > 1 => CONNECT_TIMEOUT_OF_SEVERAL,
            None | Some(Ok(..=0)) => CONNECT_TIMEOUT,
            Some(Ok(seconds)) => Duration::from_secs(u64::from(seconds.unsigned_abs()).clamp(1, 600)),
            Some(Err(_)) => return Err(self.wrong("connect_timeout", "is not a number of seconds")),
        };
        let common = self.common()?;
        let nodes: Vec<_> = hosts.iter().map(|host| self.node(common.clone(), host)).collect();
        if let Some(twice) = repeated_host(nodes.iter().map(|node| (node.get_host(), node.get_port()))) {
            return Err(self.wrong_hosts(format_args!("names the host {twice} twice")));
        }
        let settings = self.get("options").map_or(Some(Vec::new()), server_settings);
        let form = "does not have the form -c name=value or --name=value";
        let mut settings = settings.ok_or_else(|| self.wrong("options", form))?;
        settings.extend(self.options.iter().cloned());
        let settings_from = self.origins.get("options").copied().unwrap_or("DATABASE_URL");
        Ok(DatabaseAddress { nodes, target, connect_timeout, settings, settings_from })
    }

    /// The hosts with their ports: from `hostaddr`, else from `host`, else from the URL.
    fn hosts(&self, url: &ServiceUrl) -> Result<Vec<(String, u16)>, UrlFault> {
        let named = self.get("hostaddr").or(self.get("host")).map(|names| {
            let whole = |name: &str| name.trim_start_matches('[').trim_end_matches(']').to_owned();
            names.split(',').map(whole).collect::<Vec<_>>()
        });
        let names = named.unwrap_or_else(|| url.hosts.iter().map(|host| host.name.clone()).collect());
        let ports = match self.get("port") {
            Some(ports) => {
                let wrong = |_| self.wrong("port", "is not a number from 1 to 65535");
                ports
                    .split(',')
                    .map(|port| Host::port(port).map(Some).map_err(wrong))
                    .collect::<Result<_, _>>()?
            }
            None => Vec::new(),
        };
        // A port in the URL wins; the parameter or variable is for hosts without one.
        let own: Vec<_> = url.hosts.iter().map(|host| host.port).collect();
        let port = |index: usize| {
            let of = |list: &[Option<u16>]| match list {
                [one] => *one,
                list => list.get(index).copied().flatten(),
            };
            of(&own).or(of(&ports)).unwrap_or(5432)
        };
        let differs = |count| count > 1 && count != names.len();
        if differs(ports.len()) {
            return Err(self.wrong("port", "has another number of ports than there are hosts"));
        }
        if differs(own.len()) {
            return Err("has another number of ports than of hosts".to_owned().into());
        }
        // An empty host alone is the server of this machine. In a list it is most likely a comma too many.
        if names.len() > 1 && names.iter().any(String::is_empty) {
            let beside = names.iter().find(|name| !name.is_empty());
            let beside = beside.map(|name| format!(", beside {name}")).unwrap_or_default();
            return Err(
                self.wrong_hosts(format_args!("has an empty host in its list{beside}; remove the comma"))
            );
        }
        Ok(names.into_iter().enumerate().map(|(index, name)| (name, port(index))).collect())
    }

    /// The fault of the list of hosts, with the variable that it is from.
    fn wrong_hosts(&self, what: impl fmt::Display) -> UrlFault {
        let variable = ["hostaddr", "host"].into_iter().find_map(|name| self.origins.get(name).copied());
        UrlFault { variable: variable.unwrap_or("DATABASE_URL"), what: what.to_string() }
    }

    /// What all nodes have in common.
    fn common(&self) -> Result<PgConnectOptions, UrlFault> {
        let root = self.get("sslrootcert");
        let mode = match (self.get("sslmode"), root) {
            (None, Some("system")) => PgSslMode::VerifyFull,
            (None, _) => PgSslMode::Prefer,
            // With a root certificate, libpq verifies the server's: older releases had no `verify-ca`.
            (Some("require"), Some(_)) => PgSslMode::VerifyCa,
            (Some(mode), _) => mode.parse().map_err(|_| {
                self.wrong("sslmode", "must be disable, allow, prefer, require, verify-ca or verify-full")
            })?,
        };
        let mut options = self.certificates(PgConnectOptions::new_without_pgpass().ssl_mode(mode))?;
        if let Some(user) = self.get("user") {
            options = options.username(user);
        }
        if let Some(database) = self.get("dbname") {
            options = options.database(database);
        }
        if let Some(name) = self.get("application_name") {
            options = options.application_name(name);
        }
        if let Some(capacity) = self.get("statement-cache-capacity") {
            let wrong = |_| self.wrong("statement-cache-capacity", "is not a number");
            options = options.statement_cache_capacity(capacity.parse().map_err(wrong)?);
        }
        Ok(options)
    }

    /// Adds the files that TLS needs in this mode.
    fn certificates(&self, mut options: PgConnectOptions) -> Result<PgConnectOptions, UrlFault> {
        let mode = options.get_ssl_mode();
        if matches!(mode, PgSslMode::Disable | PgSslMode::Allow) {
            return Ok(options);
        }
        let verifies = matches!(mode, PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        // A file that only the variable names need not exist when nothing is verified, as with libpq.
        let wanted = verifies || !self.origins.contains_key("sslrootcert");
        if wanted && self.get("sslrootcert").is_some_and(|file| file != "system") {
            options = options.ssl_root_cert(self.file("sslrootcert")?);
        }
        match (self.get("sslcert"), self.get("sslkey")) {
            (Some(_), Some(_)) => {
                Ok(options.ssl_client_cert(self.file("sslcert")?).ssl_client_key(self.file("sslkey")?))
            }
            (Some(_), None) => Err(self.wrong("sslcert", "needs sslkey too, which is missing")),
            (None, Some(_)) => Err(self.wrong("sslkey", "needs sslcert too, which is missing")),
            (None, None) => Ok(options),
        }
    }

    /// The file that the parameter names, if it can be read now: sqlx would retry for ever.
    fn file(&self, name: &str) -> Result<&str, UrlFault> {
        let file = self.get(name).unwrap_or_default();
        match std::fs::read(file) {
            Ok(_) => Ok(file),
            Err(error) => {
                Err(self.wrong(name, format_args!("names a file that cannot be read ({})", error.kind())))
            }
        }
    }

    fn node(&self, common: PgConnectOptions, (host, port): &(String, u16)) -> PgConnectOptions {
        let host = if host.is_empty() { server_of_this_machine(*port) } else { host };
        let node = common.host(host).port(*port);
        let login = Login {
            host: node.get_host(),
            port: *port,
            database: node.get_database().unwrap_or(node.get_username()),
            user: node.get_username(),
        };
        let password = self.get("password").map(SecretString::from);
        let password = password.or_else(|| pgpass::find(self.get("passfile")?, &login));
        match password {
            Some(password) => node.password(password.expose_secret()),
            None => node,
        }
    }
}

/// Where a server on this machine listens: the folder of its socket, or localhost.
fn server_of_this_machine(port: u16) -> &'static str {
    let folders = ["/var/run/postgresql", "/tmp"];
    let has_socket = |folder: &&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    folders.into_iter().find(has_socket).unwrap_or("localhost")
}

/// The settings in libpq's `options`, which are the server's command line: `-c name=value` or `--name=value`.
fn server_settings(text: &str) -> Option<Vec<(String, String)>> {
    let mut words = words(text).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(long), _) => long.to_owned(),
            (None, Some("")) => words.next()?,
            (None, Some(short)) => short.to_owned(),
            (None, None) => return None,
        };
        let (name, value) = setting.split_once('=').filter(|(name, _)| !name.is_empty())?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Some(settings)
}

/// The words between white space; a backslash escapes the next character.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character.is_ascii_whitespace() {
            words.extend(word.take());
        } else {
            let character = if character == '\\' { rest.next() } else { Some(character) };
            word.get_or_insert_default().extend(character);
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests;
