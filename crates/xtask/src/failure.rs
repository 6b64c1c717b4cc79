//! How `./dev` fails: one line on standard error, and an exit code.

use std::{fmt, process::ExitCode};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// A signal, and the exit code that stands for it.
    Interrupted(u8),
    /// A command failed. It has printed why.
    Status(u8),
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => write!(to, "{what} (./dev help lists what there is)"),
            Self::Interrupted(_) => write!(to, "interrupted"),
            Self::Status(code) => write!(to, "exit code {code}"),
        }
    }
}

impl std::error::Error for Failure {}

pub(crate) fn wrong_usage(what: impl Into<String>) -> anyhow::Error {
    Failure::Usage(what.into()).into()
}

/// Whether a signal ended the work.
pub(crate) fn is_interrupt(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Failure::Interrupted(_)))
}

/// Prints the error, unless its cause is on the screen already. Gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if !is_on_screen(error) {
        eprintln!("dev: {error:#}");
    }
    ExitCode::from(exit_code(error))
}

/// Whether this command ends as the one that it ran: a test runner, a driver.
fn passes_on(error: &anyhow::Error) -> bool {
    error.chain().count() == 1
}

fn is_on_screen(error: &anyhow::Error) -> bool {
    is_interrupt(error) || matches!(error.downcast_ref(), Some(Failure::Status(_))) && passes_on(error)
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(Failure::Usage(_)) => 2,
        Some(Failure::Interrupted(code)) => *code,
        Some(Failure::Status(code)) if passes_on(error) => *code,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn wrong_usage_and_signals_have_their_exit_codes_also_within_a_step() {
        let at_step = |error: anyhow::Error| Err::<(), _>(error).context("failed at: a step").unwrap_err();
        assert_eq!(exit_code(&at_step(wrong_usage("no command \"x\""))), 2);
        assert_eq!(exit_code(&at_step(Failure::Interrupted(130).into())), 130);
        assert!(is_on_screen(&at_step(Failure::Interrupted(130).into())));
        assert_eq!(exit_code(&at_step(anyhow!("the build failed"))), 1);
    }

    #[test]
    fn a_test_runners_exit_code_is_passed_on_and_another_commands_is_not() {
        let runner: anyhow::Error = Failure::Status(100).into();
        assert!(exit_code(&runner) == 100 && is_on_screen(&runner));
        let within = Err::<(), _>(runner).context("the build failed").unwrap_err();
        assert!(exit_code(&within) == 1 && !is_on_screen(&within));
    }
}
