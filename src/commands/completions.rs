//! `session-invite completions`: for a shell to load.

use crate::cli::Cli;
use clap::CommandFactory;
use clap_complete::Shell;

const EXAMPLES: &str = "\
Example:
  session-invite completions bash > /etc/bash_completion.d/session-invite";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    shell: Shell,
}

pub fn run(args: &Args) {
    clap_complete::generate(args.shell, &mut Cli::command(), "session-invite", &mut std::io::stdout());
}
