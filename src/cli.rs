//! The command line: one subcommand a variant, each in a file of its own under `commands`.

use crate::{
    audit::{self, TypedCommand},
    commands::{
        self, addresses, completions, config, dead, doctor, groups, migrate, optouts, ready, reconcile,
        retention, secrets, send, sessions, sms_sandbox, tokens, topology, trace,
    },
    config::{DatabaseArgs, GatewayArgs, LogArgs, SECRET_SETTINGS, SecretsArgs, WorkerArgs},
    telemetry,
};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
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

  What operators changed, and on whose behalf (--acting-as with any command, or ACTING_AS):
    session-invite groups disable 72 --acting-as 'Ann Smith'
    session-invite audit list --since 1d

Every flag that stands for a setting has an environment variable of the same name (--database-url, DATABASE_URL);
a .env file in the working directory is read.";

const WORKER_EXAMPLES: &str = "\
Examples:
  With every setting in .env or the environment:
    session-invite worker

  Fewer invites at a time, and a log for machines:
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
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
    /// The person whom the command is run for, as `audit list` shows it
    #[arg(
        long,
        alias = "as",
        env = "ACTING_AS",
        hide = true,
        hide_env_values = true,
        global = true,
        value_name = "NAME"
    )]
    pub acting_as: Option<String>,
}

/// The flags of commands whose values no error may show, beside those of [`SECRET_SETTINGS`].
const SECRET_FLAGS: [&str; 2] = ["--api-key", "--jwt-secret"];

/// Whether an argument is, or begins with, a flag whose value no error may show.
fn is_secret_flag(arg: &str) -> bool {
    let flag = arg.split('=').next().unwrap_or_default();
    let setting = flag.strip_prefix("--").map(|name| name.to_ascii_uppercase().replace('-', "_"));
    SECRET_FLAGS.contains(&flag) || setting.is_some_and(|name| SECRET_SETTINGS.contains(&name.as_str()))
}

impl Cli {
    /// Prints the help, the version or completions, if the command line wants one of them. They need no setting, so they work
    /// beside a `.env` that cannot be read. `None` if it wants another thing.
    pub(crate) fn answer_without_settings() -> Option<anyhow::Result<()>> {
        match Self::try_parse() {
            Ok(Self { command: Command::Completions(args), .. }) => {
                Some(completions::run(&args, Self::command()))
            }
            Ok(_) => None,
            Err(error) => match error.kind() {
                ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
                _ => None,
            },
        }
    }

    /// The names of all settings, and of those that name a file with a secret.
    pub fn setting_names() -> BTreeSet<String> {
        let files = SECRET_SETTINGS.iter().map(|name| format!("{name}_FILE"));
        variables(&Self::command()).into_iter().chain(files).collect()
    }

    /// Reads the command line. A wrong one ends the process, and its error shows nothing that may be part of a secret.
    pub fn read() -> Self {
        let matches = Self::command().try_get_matches();
        let parsed = matches.and_then(|matches| Ok((Self::from_arg_matches(&matches)?, matches)));
        let (cli, matches) = parsed.unwrap_or_else(|error| {
            let stray =
                matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand | ErrorKind::TooManyValues);
            let is_secret = |arg: OsString| is_secret_flag(&arg.to_string_lossy());
            if stray && std::env::args_os().any(is_secret) {
                let what = "an argument is unexpected; it is not shown, as it may be part of a secret. Put a value with spaces in \
                            quotes, and write --flag='-value' for one that begins with a dash";
                end(&Self::command().error(error.kind(), what));
            }
            if error.kind() == ErrorKind::InvalidUtf8 {
                let names = unreadable_variables(&Self::command());
                if !names.is_empty() {
                    let what = format!("{}: is not UTF-8 text", names.into_iter().collect::<Vec<_>>().join(", "));
                    end(&Self::command().error(error.kind(), what));
                }
            }
            end(&error)
        });
        audit::set_command(typed_command(&matches, std::env::args_os(), cli.acting_as.clone()));
        cli
    }
}

/// Ends the process with a wrong command line, whose error is JSON where the log is.
fn end(error: &clap::Error) -> ! {
    if !telemetry::is_json(None) {
        error.exit();
    }
    telemetry::fatal(true, &error.to_string().trim().trim_start_matches("error: "));
    std::process::exit(error.exit_code());
}

/// The command for the audit.
fn typed_command(
    matches: &ArgMatches,
    args: impl IntoIterator<Item = OsString>,
    acting_as: Option<String>,
) -> TypedCommand {
    let mut command = Cli::command();
    command.build();
    let (mut action, mut phones) = (Vec::new(), BTreeSet::new());
    let (mut level, mut matched) = (Some(&command), matches);
    while let Some(known) = level {
        for arg in known.get_arguments().filter(|arg| is_phone(arg)) {
            let given = matched.try_get_raw(arg.get_id().as_str()).ok().flatten();
            phones.extend(given.into_iter().flatten().map(OsStr::to_owned));
        }
        let Some((name, below)) = matched.subcommand() else { break };
        action.push(name);
        (level, matched) = (known.find_subcommand(name), below);
    }
    let line = typed_line(args.into_iter().skip(1), &phones);
    TypedCommand { action: action.join(" "), line, acting_as }
}

fn is_phone(arg: &clap::Arg) -> bool {
    arg.get_long() == Some("phone")
        || arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == "PHONE"))
}

/// The line as it was typed, without secrets and these phone numbers.
fn typed_line(args: impl Iterator<Item = OsString>, phones: &BTreeSet<OsString>) -> String {
    let mut words = vec!["session-invite".to_owned()];
    let mut is_secret = false;
    for arg in args {
        let text = arg.to_string_lossy();
        let flag = text.split('=').next().filter(|flag| flag.starts_with("--")).unwrap_or_default();
        let value = text.split_once('=').map(|(_, value)| OsString::from(value));
        let takes_next = value.is_none() && is_secret_flag(flag);
        words.push(match value {
            _ if is_secret => "***".to_owned(),
            Some(_) if is_secret_flag(flag) => format!("{flag}=***"),
            Some(value) if phones.contains(&value) => format!("{flag}=PHONE"),
            _ if phones.contains(&arg) => "PHONE".to_owned(),
            _ => quoted(&text),
        });
        is_secret = takes_next;
    }
    words.join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Those variables whose values are not UTF-8.
fn unreadable_variables(command: &clap::Command) -> BTreeSet<String> {
    let unreadable = |name: &String| std::env::var_os(name).is_some_and(|value| value.to_str().is_none());
    variables(command).into_iter().filter(unreadable).collect()
}

/// The variables of this command's flags, and of its subcommands' flags.
fn variables(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(clap::Arg::get_env);
    let own = own.map(|name| name.to_string_lossy().into_owned());
    own.chain(command.get_subcommands().flat_map(variables)).collect()
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
    Migrate(migrate::MigrateArgs),
    /// Add, show and change groups
    Groups(AdminArgs<groups::GroupsArgs>),
    /// Add, list and remove addresses that stand for users in login keys
    Addresses(AdminArgs<addresses::AddressesArgs>),
    /// Issue credentials, to test with
    Tokens(AdminArgs<tokens::TokensArgs>),
    /// Publish an invite, wait for its reply, and print it
    Send(send::SendArgs),
    /// List sessions, show one, or look one up by its key
    Sessions(sessions::SessionsArgs),
    /// Tell the story of one invite, by any id, key or phone number of it
    Trace(Box<trace::TraceArgs>),
    /// List, show, replay and drop dead letters: messages that were set aside
    Dead(dead::DeadArgs),
    /// List, add and remove visitors who want no texts
    Optouts(AdminArgs<optouts::OptoutsArgs>),
    /// Seal all secrets again, to change SECRETS_KEY
    Secrets(AdminArgs<secrets::SecretsCommandArgs>),
    /// Hold the sessions against the provider's list of texts
    Reconcile(Box<reconcile::ReconcileArgs>),
    /// List what operators changed
    Audit(commands::audit::AuditArgs),
    /// Check everything that the worker needs, and say how to fix it
    Doctor(Box<doctor::DoctorArgs>),
    /// Run a local Twilio-style provider with an inbox to look at
    SmsSandbox(sms_sandbox::SmsSandboxArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Declare the queues without a worker, or delete them
    Topology(topology::TopologyArgs),
    /// Request a worker's or a gateway's /readyz; exit 0 when it is ready
    Ready(ready::ReadyArgs),
    /// Show the settings that are in force, and where each comes from
    Config(config::ConfigArgs),
    /// Count the rows that are old enough to be blanked or deleted
    Retention(retention::RetentionCommandArgs),
}

/// A command on the groups' tables: its own arguments, the database's and the secrets'.
#[derive(Debug, clap::Args)]
pub struct AdminArgs<A: clap::Args> {
    #[command(flatten)]
    pub args: A,
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub secrets: SecretsArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(args: &[&str]) -> TypedCommand {
        let args = [&["session-invite"], args].concat();
        let matches = Cli::command().try_get_matches_from(&args).unwrap();
        typed_command(&matches, args.iter().map(OsString::from), None)
    }

    #[test]
    fn a_typed_command_has_neither_secrets_nor_phone_numbers() {
        for (args, action, expected) in [
            (&["groups", "disable", "72"][..], "groups disable", "groups disable 72"),
            (
                &["groups", "set", "72", "--template", "it's {key}", "--database-url=postgres://u:p@h/d"],
                "groups set",
                r"groups set 72 --template 'it'\''s {key}' --database-url=***",
            ),
            (
                &["dead", "drop", "3f9a", "--amqp-url", "amqp://u:p@h"],
                "dead drop",
                "dead drop 3f9a --amqp-url ***",
            ),
            (&["groups", "add", "7", "--api-key", "K"], "groups add", "groups add 7 --api-key ***"),
            (&["optouts", "add", "111-000-0000"], "optouts add", "optouts add PHONE"),
            (
                &["optouts", "remove", "201", "555", "0123"],
                "optouts remove",
                "optouts remove PHONE PHONE PHONE",
            ),
            (&["send", "--group", "72", "--phone=111-000-0000"], "send", "send --group 72 --phone=PHONE"),
        ] {
            let typed = line(args);
            assert_eq!((typed.action.as_str(), typed.line), (action, format!("session-invite {expected}")));
        }
    }
}
