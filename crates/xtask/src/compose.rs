//! Docker Compose: one of the project's files, as a project with a name of its own.

use crate::shell::{self, RunToEnd as _};
use anyhow::{Result, bail};
use std::{env, process::Command, time::Duration};

/// How much of a project goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Volumes {
    Keep,
    /// The servers' data goes; what was fetched and compiled stays.
    KeepCaches,
    Remove,
}

/// Which of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ComposeFile {
    /// docker-compose.yml
    Main,
    /// The same, with the servers' ports on this machine.
    MainWithPorts,
    /// docker-compose.cluster.yml
    Cluster,
}

impl ComposeFile {
    fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Main => &["docker-compose.yml"],
            Self::MainWithPorts => &["docker-compose.yml", "docker-compose.ports.yml"],
            Self::Cluster => &["docker-compose.cluster.yml"],
        }
    }
}

/// A Compose project.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    pub name: String,
    pub environment: Vec<(&'static str, String)>,
    pub file: ComposeFile,
}

impl Project {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), environment: Vec::new(), file: ComposeFile::Main }
    }

    /// `docker compose` for this project. A developer's .env is not read.
    pub(crate) fn command(&self) -> Command {
        let mut command = shell::command("docker");
        command.args(["compose", "--env-file", "/dev/null", "--project-name", &self.name]);
        for path in self.file.paths() {
            command.args(["--file", path]);
        }
        // The file requires the key, for its worker.
        if env::var_os("SECRETS_KEY").is_none() {
            command.env("SECRETS_KEY", "unused");
        }
        command.envs(self.environment.iter().cloned());
        command
    }
}

/// Whether Compose is there, and an engine answers.
pub(crate) fn works() -> Result<bool> {
    Ok(is_installed()? && shell::command("docker").arg("info").succeeds_within(Duration::from_secs(10))?)
}

pub(crate) fn is_installed() -> Result<bool> {
    Ok(shell::find("docker").is_some() && shell::command("docker").args(["compose", "version"]).succeeds()?)
}

/// Stops and removes a project's containers. What is not there any more is no failure.
pub(crate) fn down(name: &str, file: ComposeFile, volumes: Volumes) {
    let mut command = Project { file, ..Project::new(name) }.command();
    command.args(["--profile", "*", "down", "--timeout", "10"]);
    if volumes == Volumes::Remove {
        command.arg("--volumes");
    }
    let _ = command.succeeds();
    if volumes == Volumes::KeepCaches {
        let data = ["postgres", "rabbitmq"].map(|service| format!("{name}_{service}"));
        let _ = shell::command("docker").args(["volume", "rm", "--force"]).args(data).succeeds();
    }
}

/// Fails unless an engine answers.
pub(crate) fn need_engine() -> Result<()> {
    if !works()? {
        bail!("no Docker engine with Compose answers here: start one, or install docker and docker-compose");
    }
    Ok(())
}
