//! The program, run once to its end.

use super::DEADLINE;
use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct CommandResult {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl CommandResult {
    /// Standard output of a command that succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// The JSON that a command printed that succeeded.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let printed = self.ok();
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
    }

    /// Standard error of a command that failed with this code.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self.stderr
    }
}

/// The program with these variables only, in a folder without a `.env` file.
pub fn program(environment: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_session-invite"));
    command.env_clear().envs(environment.iter().cloned()).current_dir("/").stdin(Stdio::null());
    command
}

/// Runs it to its end. A command that does not end within the deadline is killed, and fails the test.
pub fn run(environment: &[(String, String)], args: &[&str]) -> CommandResult {
    run_with_input(environment, args, "")
}

/// The same, with this text on standard input.
pub fn run_with_input(environment: &[(String, String)], args: &[&str], input: &str) -> CommandResult {
    let mut command = program(environment);
    let mut child = command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let stdout = read(child.stdout.take().expect("standard output is piped"));
    let stderr = read(child.stderr.take().expect("standard error is piped"));
    // A command that reads no input may have ended already.
    let _ = child.stdin.take().expect("standard input is piped").write_all(input.as_bytes());
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child has a status") {
            break Some(status);
        }
        if begun.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |reader: std::thread::JoinHandle<String>| reader.join().expect("UTF-8 is printed");
    let (stdout, stderr) = (text(stdout), text(stderr));
    let Some(status) = status else { panic!("{args:?} does not end:\n{stdout}\n{stderr}") };
    CommandResult { code: status.code(), stdout, stderr }
}

fn read(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).expect("UTF-8 is printed");
        text
    })
}
