//! The program, run once to its end.

use super::DEADLINE;
use std::{
    io::Read,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// What it printed, if it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// What it printed as JSON, if it succeeded.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let printed = self.ok();
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
    }

    /// The complaint of a command that failed with this code.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self.stderr
    }
}

/// The program in an environment that holds these variables and nothing else, away from any `.env` file.
pub fn program(environment: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_session-invite"));
    command.env_clear().envs(environment.iter().cloned()).current_dir("/").stdin(Stdio::null());
    command
}

/// Runs it to its end; one that goes on for too long is killed, and fails the test.
pub fn run(environment: &[(String, String)], args: &[&str]) -> Ran {
    let mut command = program(environment);
    let mut child =
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let stdout = read(child.stdout.take().expect("standard output is piped"));
    let stderr = read(child.stderr.take().expect("standard error is piped"));
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be asked") {
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
    Ran { code: status.code(), stdout, stderr }
}

fn read(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).expect("UTF-8 is printed");
        text
    })
}
