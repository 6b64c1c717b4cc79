//! The processes that a measurement starts. Whatever ends it, they end with it.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use test_support::process::signal;
use tokio::time::sleep;

/// How long a worker may take to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(40);

/// Killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Its standard error goes to a log.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self, String> {
        let complain = |error: std::io::Error| format!("{}: {error}", log.display());
        let file = File::create(log).map_err(complain)?;
        let child = command.current_dir("/").stdin(Stdio::null()).stderr(file).spawn().map_err(complain)?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// This program once more, as something else.
    pub fn start_role(arguments: &[&str], log: &Path) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        Self::start(Command::new(own).args(arguments).stdout(Stdio::piped()), log)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line that it prints.
    pub fn first_line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        if line.is_empty() { Err(self.says()) } else { Ok(line.trim_end().to_owned()) }
    }

    /// Asks it to stop, and waits.
    pub async fn stop(mut self) -> Result<(), String> {
        let gone = |child: &mut Child| child.try_wait().map_err(|error| error.to_string());
        if let Some(status) = gone(&mut self.child)? {
            return Err(format!("it ended unasked, {status}: {}", self.says()));
        }
        signal(self.pid(), "TERM");
        let begun = Instant::now();
        loop {
            match gone(&mut self.child)? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(format!("when asked to stop, it ended with {status}: {}", self.says()));
                }
                None if begun.elapsed() > STOPS_WITHIN => return Err("it does not stop".to_owned()),
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// The end of its log.
    pub fn says(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
