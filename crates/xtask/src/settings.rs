//! The settings of a demo or of `up`, and the program's processes that run with them.

use crate::{
    http,
    output::{quoted, say},
    paths, ports,
    process::Process,
    program, random,
    run::{Run, write_private},
    services::Services,
    shell,
};
use anyhow::{Context, Result, bail};
use std::{fs, path::PathBuf, process::Command, time::Duration};

const SANDBOX_STARTS_WITHIN: Duration = Duration::from_secs(10);
const READY_WITHIN: Duration = Duration::from_secs(30);
/// They would choose another account or sender than ours.
const NOT_OURS: [&str; 3] = ["TWILIO_API_KEY", "TWILIO_API_SECRET", "SMS_MESSAGING_SERVICE_SID"];

/// What every command of the program reads.
#[derive(Debug)]
pub(crate) struct Settings {
    pub database_url: String,
    pub amqp_url: String,
    pub queue_prefix: String,
    pub secrets_key: String,
    pub sandbox_url: String,
    /// The worker's.
    pub http_port: u16,
    pub gateway_port: u16,
    /// The token of the gateway's console.
    pub console_token: String,
}

impl Settings {
    pub(crate) fn new(
        services: &Services,
        database_url: String,
        queue_prefix: String,
        secrets_key: String,
        sandbox_url: String,
    ) -> Result<Self> {
        let amqp_url = services.rabbitmq.url.clone();
        let (http_port, gateway_port) = (ports::free()?, ports::free()?);
        let console_token = format!("{}{}", random::word()?, random::word()?);
        Ok(Self {
            database_url,
            amqp_url,
            queue_prefix,
            secrets_key,
            sandbox_url,
            http_port,
            gateway_port,
            console_token,
        })
    }

    /// Links lead to the gateway, and so do the sandbox's receipts.
    pub(crate) fn public_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.gateway_port)
    }

    pub(crate) fn readiness_url(&self) -> String {
        format!("http://127.0.0.1:{}/readyz", self.http_port)
    }

    /// What a person needs in a shell of their own.
    fn exported(&self) -> [(&'static str, String); 9] {
        [
            ("DATABASE_URL", self.database_url.clone()),
            ("AMQP_URL", self.amqp_url.clone()),
            ("QUEUE_PREFIX", self.queue_prefix.clone()),
            ("SECRETS_KEY", self.secrets_key.clone()),
            ("SMS_BASE_URL", self.sandbox_url.clone()),
            ("TWILIO_ACCOUNT_SID", "ACdemo".to_owned()),
            ("TWILIO_AUTH_TOKEN", "demo".to_owned()),
            ("SMS_FROM", "+15005550006".to_owned()),
            ("PUBLIC_URL", self.public_url()),
        ]
    }

    pub(crate) fn print_exports(&self) {
        for (name, value) in self.exported() {
            say(format!("    export {name}={}", quoted(&value)));
        }
    }

    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let addresses = [("HTTP_ADDR", self.http_port), ("GATEWAY_ADDR", self.gateway_port)];
        let addresses = addresses.map(|(name, port)| (name, format!("127.0.0.1:{port}")));
        let all = self.exported().into_iter().chain(addresses);
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A command of the program.
    pub(crate) fn invite(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = shell::of_words(&program::words(arguments)?);
        for name in NOT_OURS {
            command.env_remove(name);
        }
        command.envs(self.environment());
        Ok(command)
    }

    pub(crate) fn start_worker(&self, run: &Run) -> Result<()> {
        let process = start(run, "worker", &self.environment())?;
        wait_until_ready(run, &process, self.http_port)
    }

    pub(crate) fn start_gateway(&self, run: &Run) -> Result<()> {
        let mut environment = self.environment();
        // The worker has HTTP_ADDR. The later of two counts.
        environment.push(("HTTP_ADDR".to_owned(), "127.0.0.1:0".to_owned()));
        environment.push(("CONSOLE_TOKEN".to_owned(), self.console_token.clone()));
        let process = start(run, "gateway", &environment)?;
        wait_until_ready(run, &process, self.gateway_port)
    }
}

/// Starts the provider. Gives its URL.
pub(crate) fn start_sandbox(run: &Run) -> Result<String> {
    let process = run.start("sandbox", &program::words(&["sms-sandbox", "--port", "0"])?, &[])?;
    let log = run.log("sandbox");
    let mut url = None;
    let is_ready = || {
        url = sandbox_url(&fs::read_to_string(&log).unwrap_or_default());
        url.is_some()
    };
    run.wait_for(&process, SANDBOX_STARTS_WITHIN, is_ready)?;
    url.with_context(|| format!("the SMS sandbox did not start{}", run.log_note("sandbox")))
}

/// The address that the sandbox prints.
fn sandbox_url(log: &str) -> Option<String> {
    const BEGIN: &str = "http://127.0.0.1:";
    let rest = &log[log.find(BEGIN)? + BEGIN.len()..];
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    (end > 0).then(|| format!("{BEGIN}{}", &rest[..end]))
}

/// Starts a process of the program that runs until it is ended.
fn start(run: &Run, role: &str, environment: &[(String, String)]) -> Result<Process> {
    let mut own = vec!["env".to_owned()];
    own.extend(NOT_OURS.iter().map(|name| format!("--unset={name}")));
    own.extend(program::words(&[role])?);
    run.start(role, &own, environment)
}

fn wait_until_ready(run: &Run, process: &Process, port: u16) -> Result<()> {
    if run.wait_for(process, READY_WITHIN, || http::get(port, "/readyz").is_ok())? {
        return Ok(());
    }
    bail!("the {} did not become ready{}", process.name, run.log_note(&process.name))
}

/// The key of `./dev up`. Group keys in the database are sealed with it, so it lives as long as the data.
pub(crate) fn kept_key() -> Result<String> {
    let file = kept_key_file()?;
    if file.metadata().is_ok_and(|about| about.len() > 0) {
        return Ok(fs::read_to_string(file)?.trim_end().to_owned());
    }
    let key = random::key()?;
    write_private(&file, &format!("{key}\n"))?;
    Ok(key)
}

pub(crate) fn kept_key_file() -> Result<PathBuf> {
    Ok(paths::dev()?.join("secrets-key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandboxs_address_is_what_it_prints_first() {
        assert_eq!(
            sandbox_url("a http://127.0.0.1:8081/ http://127.0.0.1:9/"),
            Some("http://127.0.0.1:8081".into())
        );
        assert_eq!(sandbox_url("http://127.0.0.1:"), None);
        assert_eq!(sandbox_url(""), None);
    }

    #[test]
    fn the_gateways_address_is_the_public_one() {
        let text = String::new;
        let settings = Settings {
            database_url: text(),
            amqp_url: text(),
            queue_prefix: text(),
            secrets_key: text(),
            sandbox_url: text(),
            http_port: 1,
            gateway_port: 2,
            console_token: text(),
        };
        assert_eq!(settings.public_url(), "http://127.0.0.1:2");
        let has =
            |name: &str, value: &str| settings.environment().contains(&(name.to_owned(), value.to_owned()));
        assert!(has("HTTP_ADDR", "127.0.0.1:1") && has("GATEWAY_ADDR", "127.0.0.1:2"));
        assert!(!settings.exported().iter().any(|(name, _)| *name == "HTTP_ADDR"));
    }
}
