//! The processes that a measurement starts. They end with it, also when it fails.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use test_support::process::{Signal, signal};
use tokio::time::sleep;

/// How long a worker may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    child: Child,
    log: PathBuf,
}

impl ChildProcess {
    /// Starts it with its standard error in a log.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", log.display());
        let file = File::create(log).map_err(failed)?;
        let child = command.current_dir("/").stdin(Stdio::null()).stderr(file).spawn().map_err(failed)?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Starts this program again, in one of its roles ([`crate::options::Role`]).
    pub(crate) fn start_role(arguments: &[&str], log: &Path) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        Self::start(Command::new(program).args(arguments).stdout(Stdio::piped()), log)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line that it prints.
    pub(crate) fn first_line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        if line.is_empty() { Err(self.last_log_lines()) } else { Ok(line.trim_end().to_owned()) }
    }

    /// Sends SIGTERM and waits for the end. An error if it ended before, late, or without success.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        let exit_status = |child: &mut Child| child.try_wait().map_err(|error| error.to_string());
        if let Some(status) = exit_status(&mut self.child)? {
            return Err(format!("it ended before SIGTERM, {status}: {}", self.last_log_lines()));
        }
        let _ = signal(self.pid(), Signal::TERM);
        let start = Instant::now();
        loop {
            match exit_status(&mut self.child)? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(format!("after SIGTERM it ended with {status}: {}", self.last_log_lines()));
                }
                None if start.elapsed() > STOP_TIMEOUT => {
                    return Err(format!("it did not end within {STOP_TIMEOUT:?} of SIGTERM"));
                }
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    pub(crate) fn last_log_lines(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
