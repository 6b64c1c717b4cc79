//! What the programs behind `./dev soak` and `./dev bench` share.

use std::{os::unix::process::parent_id, path::PathBuf, time::Duration};

/// Paths and servers of a run. `./dev` finds or makes them, and passes them in the environment.
#[derive(Debug, Clone)]
pub struct RunEnvironment {
    /// The directory of this run, with its undo log.
    pub run: PathBuf,
    /// The directory for reports, which outlive the run.
    pub reports: PathBuf,
    /// The program under test.
    pub program: PathBuf,
    /// The URL of the run's database.
    pub database_url: String,
    /// The URL of the broker.
    pub amqp_url: String,
}

impl RunEnvironment {
    /// Reads `{prefix}_RUN_DIR`, `{prefix}_REPORTS`, `SESSION_INVITE_BIN`, `DATABASE_URL` and `AMQP_URL`. `None` if one is
    /// missing.
    pub fn read(prefix: &str) -> Option<Self> {
        Some(Self {
            run: variable(&format!("{prefix}_RUN_DIR"))?.into(),
            reports: variable(&format!("{prefix}_REPORTS"))?.into(),
            program: variable("SESSION_INVITE_BIN")?.into(),
            database_url: variable("DATABASE_URL")?,
            amqp_url: variable("AMQP_URL")?,
        })
    }
}

/// The value of an environment variable that is not empty.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Parses a command line option `NAME=VALUE`.
pub fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Ends when the parent process, `./dev`, has ended.
pub async fn orphaned() {
    let parent = parent_id();
    while parent_id() == parent {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
