//! `session-invite config show`: the settings that are in force, and where each comes from.

use crate::{
    config::{
        DotEnv, Faults, GatewayArgs, ShownConfig, WorkerArgs, is_from_file, libpq_variables, secret_files,
    },
    output::{Format, plain, print},
};
use clap::{ArgMatches, FromArgMatches, parser::ValueSource};
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  session-invite config show
  session-invite config show worker --prefetch 100
  session-invite config show gateway --json

It shows what a process would have that is started here and now. Secrets are masked, and so are
values that are wrong. Flags go before settings of the environment, those before the file .env.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// Show the settings of the worker, of the gateway, or of both
    #[command(after_help = EXAMPLES)]
    Show {
        #[command(subcommand)]
        process: Option<ShownProcess>,
    },
}

#[derive(Debug, Clone, clap::Subcommand)]
enum ShownProcess {
    /// Those of the worker, with any of its flags
    Worker(Box<WorkerArgs>),
    /// Those of the gateway, with any of its flags
    Gateway(Box<GatewayArgs>),
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
enum SettingSource {
    Flag,
    Environment,
    /// `.env`.
    File,
    /// The file that the variable with `_FILE` at its end names.
    SecretFile,
    Default,
}

#[derive(Debug, Serialize)]
struct SettingView {
    name: String,
    /// `None` for a setting that is not set and has no default.
    value: Option<String>,
    from: Option<SettingSource>,
}

#[derive(Debug, Serialize)]
struct ProcessView {
    process: &'static str,
    settings: Vec<SettingView>,
    faults: Vec<String>,
}

/// `command` is the whole command line.
pub(crate) fn run(args: &ConfigArgs, command: &clap::Command, file: &DotEnv) -> anyhow::Result<()> {
    let ConfigCommand::Show { process } = &args.command;
    let (mut views, mut faults) = (Vec::new(), Vec::new());
    if let Some(process) = process {
        let matches = innermost(command.clone().get_matches());
        views.push(process.view(command, &matches, file, &mut faults));
    } else {
        // Without a process on the command line there are no flags of it: the environment gives all.
        let matches = |name| command.clone().try_get_matches_from(["session-invite", name]).map(innermost);
        let (worker, gateway) = (matches("worker")?, matches("gateway")?);
        let process = ShownProcess::Worker(Box::new(WorkerArgs::from_arg_matches(&worker)?));
        views.push(process.view(command, &worker, file, &mut faults));
        let process = ShownProcess::Gateway(Box::new(GatewayArgs::from_arg_matches(&gateway)?));
        views.push(process.view(command, &gateway, file, &mut faults));
    }
    print_views(&views, args.format)?;
    match faults.into_iter().find(|faults| !faults.lines().is_empty()) {
        Some(faults) => Err(faults.into()),
        None => Ok(()),
    }
}

impl ShownProcess {
    fn view(
        &self,
        command: &clap::Command,
        matches: &ArgMatches,
        file: &DotEnv,
        faults: &mut Vec<Faults>,
    ) -> ProcessView {
        let (process, config) = match self {
            Self::Worker(args) => ("worker", ShownConfig::of_worker(args)),
            Self::Gateway(args) => ("gateway", ShownConfig::of_gateway(args)),
        };
        let settings = settings(process, &config, command, matches, file);
        let view = ProcessView { process, settings, faults: config.faults.lines().to_vec() };
        faults.push(config.faults);
        view
    }
}

/// Those of the last subcommand, which has the global flags too.
fn innermost(mut matches: ArgMatches) -> ArgMatches {
    while let Some((_, inner)) = matches.remove_subcommand() {
        matches = inner;
    }
    matches
}

fn settings(
    process: &str,
    config: &ShownConfig,
    command: &clap::Command,
    matches: &ArgMatches,
    file: &DotEnv,
) -> Vec<SettingView> {
    let own = command.find_subcommand(process).into_iter().flat_map(clap::Command::get_arguments);
    let all = own.chain(command.get_arguments());
    let mut views: Vec<_> = all.filter_map(|setting| setting_view(setting, config, matches, file)).collect();
    let libpq = libpq_variables().into_iter().map(|(name, value)| (name.to_owned(), value));
    views.extend(libpq.chain(secret_files()).map(|(name, value)| {
        let from = Some(from_environment(&name, file));
        SettingView { name, value: Some(value), from }
    }));
    views
}

/// `None` for a flag that is not a setting.
fn setting_view(
    setting: &clap::Arg,
    config: &ShownConfig,
    matches: &ArgMatches,
    file: &DotEnv,
) -> Option<SettingView> {
    let name = setting.get_env()?.to_str()?.to_owned();
    let given = matches.get_raw(setting.get_id().as_str()).and_then(|mut values| values.next());
    let given = given.map(|given| given.to_string_lossy()).filter(|given| !given.trim().is_empty());
    let (value, from) = if let Some(given) = given {
        let is_flag = matches.value_source(setting.get_id().as_str()) == Some(ValueSource::CommandLine);
        let from = if is_flag { SettingSource::Flag } else { from_environment(&name, file) };
        (Some(config.value(&name, &given)), Some(from))
    } else {
        let default = config.default_of(&name).map(str::to_owned).or_else(|| default_in_help(setting));
        let from = default.is_some().then_some(SettingSource::Default);
        (default, from)
    };
    Some(SettingView { name, value, from })
}

fn from_environment(name: &str, file: &DotEnv) -> SettingSource {
    match name {
        _ if is_from_file(name) => SettingSource::SecretFile,
        _ if file.gives(name) => SettingSource::File,
        _ => SettingSource::Environment,
    }
}

/// For a setting whose default is not read as a value would be: that of the log, or none.
fn default_in_help(setting: &clap::Arg) -> Option<String> {
    let help = setting.get_help()?.to_string();
    let (_, rest) = help.split_once("[default: ")?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn print_views(views: &[ProcessView], format: Format) -> anyhow::Result<()> {
    if format.json {
        return format.list([], views, |_| []);
    }
    for view in views {
        print(&format!("The {}, if it is started here and now:", view.process))?;
        format.list(["SETTING", "VALUE", "FROM"], &view.settings, SettingView::cells)?;
        for fault in &view.faults {
            print(&format!("wrong: {fault}"))?;
        }
        print("")?;
    }
    Ok(())
}

impl SettingView {
    fn cells(&self) -> [String; 3] {
        let value = self.value.as_deref().map_or_else(|| "-".to_owned(), plain);
        [self.name.clone(), value, self.from.map_or("not set", Into::into).to_owned()]
    }
}
