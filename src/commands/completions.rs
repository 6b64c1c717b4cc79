//! `session-invite completions`: for a shell to load.

use crate::output::print;
use clap_complete::Shell;

const EXAMPLES: &str = "\
Example:
  session-invite completions bash > /etc/bash_completion.d/session-invite";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    shell: Shell,
}

/// Prints the completions of `command`, the whole command line.
pub(crate) fn run(args: &CompletionsArgs, mut command: clap::Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "session-invite", &mut script);
    print(&String::from_utf8(script)?)
}
