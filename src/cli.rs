//! The command line: one subcommand a variant, each in a file of its own under `commands`.

use crate::{
    commands::{
        addresses, completions, dead, doctor, groups, migrate, optouts, ready, secrets, send, sessions,
        sms_sandbox, tokens, topology,
    },
    config::{DatabaseArgs, GatewayArgs, LogArgs, SecretsArgs, WorkerArgs},
};
use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
};

const EXAMPLES: &str = "\
Examples:
  A worker against the local sandbox:
    session-invite sms-sandbox --port 8081 &
    SMS_BASE_URL=http://127.0.0.1:8081 session-invite worker

  A group, and an invite of it:
    session-invite groups add 72
    session-invite send --group 72 --user 12345 --phone 111-000-0000

  In a script, until the worker is ready:
    until session-invite ready; do sleep 1; done

  The queues, for workers whose broker user may not declare them:
    session-invite topology declare

Every flag that stands for a setting has an environment variable of the same name (--database-url, DATABASE_URL);
a .env file in the working directory is read.";

const WORKER_EXAMPLES: &str = "\
Examples:
  With every setting in .env or the environment:
    session-invite worker

  Fewer invites in hand, and a log for machines:
    session-invite worker --prefetch 100 --log-format json

  Against the local sandbox, which needs no --public-url:
    session-invite worker --sms-base-url http://127.0.0.1:8081";

const GATEWAY_EXAMPLES: &str = "\
Examples:
  With every setting in .env or the environment, beside a worker:
    session-invite gateway

  The documented request, with a login key of an hour:
    curl -H \"Authorization: Bearer GKEY $(session-invite tokens issue gkey --group 72)\" \\
         --json '{\"sessiontype\": 1, \"smsPhone\": \"111-000-0000\"}' \\
         'http://127.0.0.1:8080/api/SessionInvitation/smsInvite/?groupid=72'

  Behind a proxy that ends TLS:
    session-invite gateway --public-url https://invite.example --trusted-proxies 10.0.0.0/8

Its addresses are listed at /docs, for programs at /openapi.json.";

/// Turns an invite from RabbitMQ into one session, at most one text, and always an answer
#[derive(Debug, Parser)]
#[command(name = "session-invite", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub log: LogArgs,
}

/// The flags whose values no error may show.
const SECRET_FLAGS: [&str; 8] = [
    "--database-url",
    "--amqp-url",
    "--secrets-key",
    "--twilio-auth-token",
    "--twilio-api-key",
    "--twilio-api-secret",
    "--api-key",
    "--jwt-secret",
];

impl Cli {
    /// Answers what needs no setting: the help, the version and completions. So these work beside a `.env` that cannot be
    /// read. Returns whether that is what was asked for.
    pub fn answer_without_settings() -> bool {
        match Self::try_parse() {
            Ok(Self { command: Command::Completions(args), .. }) => {
                completions::run(&args, Self::command());
                true
            }
            Ok(_) => false,
            Err(error) => match error.kind() {
                ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
                _ => false,
            },
        }
    }

    /// Reads the command line; a wrong one ends the process, and shows nothing that may be part of a secret.
    pub fn read() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            let stray =
                matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand | ErrorKind::TooManyValues);
            let is_secret = |arg: OsString| {
                let arg = arg.to_string_lossy();
                SECRET_FLAGS.contains(&arg.split('=').next().unwrap_or_default())
            };
            if stray && std::env::args_os().any(is_secret) {
                let what = "an argument is too many, and not shown, as it may be part of a secret; put a value with spaces in \
                            quotes, and write --flag='-value' for one that begins with a dash";
                Self::command().error(error.kind(), what).exit();
            }
            if error.kind() == ErrorKind::InvalidUtf8 {
                let names = unreadable_variables(&Self::command());
                if !names.is_empty() {
                    let what = format!("{}: is not UTF-8 text", names.into_iter().collect::<Vec<_>>().join(", "));
                    Self::command().error(error.kind(), what).exit();
                }
            }
            error.exit()
        })
    }
}

/// The variables of flags, of this command or one below it, whose values are not UTF-8.
fn unreadable_variables(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(clap::Arg::get_env);
    let unreadable = |name: &&OsStr| std::env::var_os(name).is_some_and(|value| value.to_str().is_none());
    let own = own.filter(unreadable).map(|name| name.to_string_lossy().into_owned());
    own.chain(command.get_subcommands().flat_map(unreadable_variables)).collect()
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the main job: it migrates and declares what it needs
    #[command(after_help = WORKER_EXAMPLES)]
    Worker(Box<WorkerArgs>),
    /// Run the HTTP gateway: the request that invites replace, by way of the queue
    #[command(after_help = GATEWAY_EXAMPLES)]
    Gateway(Box<GatewayArgs>),
    /// Bring the database's schema up to date
    Migrate(migrate::Args),
    /// Add, show and change groups
    Groups(Administered<groups::Args>),
    /// The addresses that stand for users in login keys
    Addresses(Administered<addresses::Args>),
    /// Issue credentials, to test with
    Tokens(Administered<tokens::Args>),
    /// Publish an invite, wait for its reply, and print it
    Send(send::Args),
    /// List sessions, show one, or look one up by its key
    Sessions(sessions::Args),
    /// Look at what was set aside, replay it, or drop it
    Dead(dead::Args),
    /// List, add and remove visitors who want no texts
    Optouts(Administered<optouts::Args>),
    /// Seal everything anew, to change SECRETS_KEY
    Secrets(Administered<secrets::Args>),
    /// Check everything that the worker needs, and say how to mend it
    Doctor(Box<doctor::Args>),
    /// Run a local Twilio-style provider with an inbox to look at
    SmsSandbox(sms_sandbox::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// Declare the queues without a worker, or delete them
    Topology(topology::Args),
    /// Ask a worker's or a gateway's /readyz; exit 0 when it is ready
    Ready(ready::Args),
}

/// A command that works on the groups' tables, with what that needs.
#[derive(Debug, clap::Args)]
pub struct Administered<A: clap::Args> {
    #[command(flatten)]
    pub args: A,
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub secrets: SecretsArgs,
}
