//! The program, run once to its end.

use std::process::{Command, Stdio};

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

pub fn run(environment: &[(String, String)], args: &[&str]) -> Ran {
    let output = program(environment).args(args).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8 is printed");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
