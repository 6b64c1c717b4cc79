//! The command line.

use crate::{
    failure::wrong_usage,
    server::Source,
    services::{Series, ServiceOptions},
};
use anyhow::Result;
use clap::{Args, Parser, Subcommand};

const MORE_HELP: &str = "\
Where PostgreSQL and RabbitMQ come from, each by itself, the first that works:
  1. DATABASE_URL and AMQP_URL, if set
  2. what answers on 127.0.0.1:5432 and :5672
  3. Docker Compose, if an engine is there
  4. private instances of the distribution's packages (installed if missing, by root or sudo),
     under .dev/, on free ports; the system's own instances are not touched
--services running|compose|private takes 1 and 2, only 3, or only 4. It is an option of demo, test,
bench, profile, browser, dashboard, api and up.
--series new instead fetches Debian 13's RabbitMQ 4 and PostgreSQL 17 into .dev/series-new, once,
and runs them from there; it needs root or sudo. The default, old, is the above. It is an option of
test, soak, bench and profile.

SESSION_INVITE_BIN=PATH runs that program and builds none.

Examples:
  ./dev demo --keep                          leaves it running until Enter; shows the inbox's address
  ./dev test --services private              on instances of its own
  ./dev test --series new                    on RabbitMQ 4 and PostgreSQL 17
  ./dev test credential                      only the tests with that in their name
  ./dev soak --seconds 300 --invites 20000   40 kills, 5 broker restarts, and more
  ./dev soak --cluster --setting leader-kills  on three broker nodes and two database nodes
  ./dev bench --only throughput              a few seconds of load; without --only, minutes
  ./dev up && ./dev down --wipe

./dev COMMAND --help shows the options of one command.";

const UPGRADE_HELP: &str = "\
Examples:
  ./dev upgrade
  ./dev upgrade --seconds 300 --seed 1
  ./dev upgrade --set SMS_MAX_ATTEMPTS=3   nobody waits for the delays of 30 and 120 s";

/// The one door for people and CI. It needs Linux, bash and cargo
#[derive(Debug, Parser)]
#[command(name = "./dev", bin_name = "./dev", after_help = MORE_HELP, disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One invite from queue to text, and one over HTTP: starts everything, shows it, stops everything
    #[command(after_help = "Examples:\n  ./dev demo\n  ./dev demo --keep --services private")]
    Demo(DemoOptions),
    /// The whole suite against real services
    #[command(after_help = "\
Examples:
  ./dev test                                all tests
  ./dev test credential                     only the tests with that in their name
  ./dev test --series new -E 'test(crash)'  nextest's own options, on RabbitMQ 4 and PostgreSQL 17")]
    Test(TestOptions),
    /// Format, clippy, docs, plain English, dependencies, scripts, alerts
    #[command(
        after_help = "Examples:\n  ./dev check\n  ./dev check english\n  ./dev check --install --advisories"
    )]
    Check(CheckOptions),
    /// Workers, connections and servers die under load, then each invite is accounted for
    #[command(disable_help_flag = true)]
    Soak(SoakOptions),
    /// The soak, while the previous release is replaced by this one, back, and again
    ///
    /// The previous release is the commit in tests/previous-release. It is built once for each commit, in
    /// .dev/previous-release. Its workers and gateways run under load; this release's are added, and migrate the schema;
    /// the old ones are replaced one by one; then all go back to the previous release, and up again. Then each invite is
    /// accounted for.
    #[command(after_help = UPGRADE_HELP)]
    Upgrade(UpgradeOptions),
    /// The recipes of docs/SCALING.md as they are written there: sharded queues, and groups on two databases
    #[command(after_help = "\
Examples:
  ./dev shards                        a minute: what the recipes promise is checked
  ./dev shards --measure --rounds 3   then ./dev bench's parts scale-out and shards, with options of ./dev bench")]
    Shards(ShardsOptions),
    /// Throughput, latency, CPU and memory of the release build, beside a bare consumer
    #[command(disable_help_flag = true)]
    Bench(BenchOptions),
    /// One worker under load with perf, into .dev/perf.data; options as for bench
    #[command(disable_help_flag = true)]
    Profile(BenchOptions),
    /// The visitor's pages and the operators' console in a headless Chromium, which is installed if it is missing
    #[command(after_help = "Examples:\n  ./dev browser\n  ./dev browser --pictures")]
    Browser(BrowserOptions),
    /// Every panel of the dashboard has data: Prometheus scrapes a worker and a gateway under some load
    Dashboard(DashboardOptions),
    /// schemathesis against the gateway's OpenAPI document
    #[command(after_help = "Examples:\n  ./dev api\n  ./dev api --services private --max-examples 50")]
    Api(ApiOptions),
    /// cargo-fuzz's targets, from the committed seeds; needs the nightly toolchain
    #[command(after_help = "Examples:\n  ./dev fuzz\n  ./dev fuzz --seconds 3600 headers")]
    Fuzz(FuzzOptions),
    /// Builds the images; the program's has the program, no shell and no root, in 60 MiB at most
    Images,
    /// A release: the static program, its .deb, and a CycloneDX list of its crates, in target/package
    #[command(after_help = "Examples:\n  ./dev package\n  ./dev package --quick   to try the package itself")]
    Package(PackageOptions),
    /// The commands of docs/DEPLOYING.md as they are written there, in a Debian with systemd: two minutes
    Deploying,
    /// docker compose up --build --wait, an invite over the queue and one over HTTP, and down again
    #[command(
        after_help = "Examples:\n  ./dev compose\n  ./dev compose --cluster\n  ./dev compose --tests cargo test --locked --workspace"
    )]
    Compose(ComposeOptions),
    /// `./dev demo` and `./dev test`, or another command, in a container with cargo and nothing else
    #[command(after_help = "Examples:\n  ./dev bare\n  ./dev bare test credential")]
    Bare(BareOptions),
    /// Services, sandbox, worker and gateway in the background; prints what to export
    #[command(after_help = "Examples:\n  ./dev up\n  ./dev up --services private")]
    Up(UpOptions),
    /// Stops what `up` started
    #[command(after_help = "Examples:\n  ./dev down\n  ./dev down --wipe")]
    Down(DownOptions),
    /// Makes a line for .env: SECRETS_KEY=…
    #[command(after_help = "Examples:\n  ./dev key >> .env")]
    Key,
    /// Ends a server that `./dev soak` started, or starts it again; the soak's driver calls it
    #[command(hide = true)]
    SoakService(SoakServiceOptions),
}

/// For commands that have no choice of versions.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ServicesOption {
    /// Take the servers from here only [default: the first that works]
    #[arg(long, value_name = "FROM")]
    services: Option<Source>,
}

impl ServicesOption {
    pub(crate) fn options(self) -> ServiceOptions {
        ServiceOptions { services: self.services, ..ServiceOptions::default() }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// Leave it running until Enter
    #[arg(long)]
    pub keep: bool,
    #[command(flatten)]
    pub servers: ServicesOption,
}

#[derive(Debug, Args)]
pub(crate) struct TestOptions {
    #[command(flatten)]
    pub servers: ServiceOptions,
    /// For cargo nextest, or else cargo test
    #[arg(value_name = "ARGS")]
    pub arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// Install what is missing: cargo-deny, shellcheck, promtool, amtool, Grafana's types, systemd-analyze
    #[arg(long)]
    pub install: bool,
    /// Ask RustSec's database on GitHub as well
    #[arg(long)]
    pub advisories: bool,
    /// All of them, unless some are named
    #[arg(value_name = "CHECK")]
    pub checks: Vec<Check>,
}

/// One of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Check {
    Format,
    Clippy,
    Docs,
    /// Words that plain English does without
    English,
    /// The committed .sqlx against the code and the migrations
    Queries,
    Dependencies,
    /// fuzz/Cargo.lock
    FuzzLock,
    Scripts,
    /// docker-compose.yml, docker-compose.ports.yml and docker-compose.cluster.yml
    Compose,
    /// The rules of deploy/prometheus, their tests and the configuration
    Alerts,
    /// deploy/grafana's dashboard against Grafana's own types
    Dashboard,
    /// deploy/systemd: well formed, and hardened
    Units,
    /// deploy/helm: by Helm's own code and Kubernetes' schemas
    Chart,
    /// The commit in tests/previous-release, which ./dev upgrade builds
    PreviousRelease,
}

#[derive(Debug, Args)]
pub(crate) struct SoakOptions {
    /// On three broker nodes and two database nodes, in network namespaces of this run
    #[arg(long)]
    pub cluster: bool,
    #[arg(long, value_name = "SERIES", default_value = "old")]
    pub series: Series,
    /// The driver's: ./dev soak --help lists them
    #[arg(value_name = "OPTIONS")]
    pub options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UpgradeOptions {
    #[arg(long, value_name = "SERIES", default_value = "old")]
    pub series: Series,
    /// The soak's: ./dev soak --help lists them
    #[arg(value_name = "OPTIONS")]
    pub options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShardsOptions {
    /// Measure two and four shards beside one queue, with the release build
    #[arg(long)]
    pub measure: bool,
    /// With --measure: options of ./dev bench
    #[arg(value_name = "OPTIONS")]
    pub options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchOptions {
    #[command(flatten)]
    pub servers: ServiceOptions,
    /// The driver's: ./dev bench --help lists them
    #[arg(value_name = "OPTIONS")]
    pub options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BrowserOptions {
    #[command(flatten)]
    pub servers: ServicesOption,
    /// Take the pictures in docs/ again
    #[arg(long)]
    pub pictures: bool,
    /// For the test runner
    #[arg(value_name = "ARGS")]
    pub arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DashboardOptions {
    #[command(flatten)]
    pub servers: ServicesOption,
}

#[derive(Debug, Args)]
pub(crate) struct ApiOptions {
    #[command(flatten)]
    pub servers: ServicesOption,
    /// For schemathesis run
    #[arg(value_name = "ARGS")]
    pub arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct FuzzOptions {
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// All of them, unless some are named
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PackageOptions {
    /// Of the debug build: not static, and without the list of crates
    #[arg(long)]
    pub quick: bool,
    /// The package's version [default: the program's]
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ComposeOptions {
    /// docker-compose.cluster.yml: three broker nodes, two database nodes; an invite by each node of the broker
    #[arg(long, conflicts_with = "tests")]
    pub cluster: bool,
    /// The tests in which a server's version can matter, on RabbitMQ 4 and PostgreSQL 17
    #[arg(long)]
    pub tests: bool,
    /// With --tests: replaces the tests profile's own command
    #[arg(value_name = "COMMAND", requires = "tests", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BareOptions {
    /// A command of ./dev, with its options
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UpOptions {
    #[command(flatten)]
    pub servers: ServicesOption,
}

#[derive(Debug, Args)]
pub(crate) struct DownOptions {
    /// Remove its data too
    #[arg(long)]
    pub wipe: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SoakServiceOptions {
    pub name: String,
    pub what: ServiceChange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ServiceChange {
    Stop,
    Crash,
    Start,
    /// A database node that does not run: copies the other node, and starts as its standby
    Rejoin,
}

/// Reads the command line. `None` when it was help that was wanted, which is printed then.
pub(crate) fn parse(words: Vec<String>) -> Result<Option<Command>> {
    let words = if words.is_empty() { vec!["help".to_owned()] } else { sort(words) };
    let name = words[0].clone();
    match Cli::try_parse_from(["./dev".to_owned()].into_iter().chain(words)) {
        Ok(cli) => Ok(Some(cli.command)),
        Err(error) if error.use_stderr() => Err(in_one_line(&error, &name)),
        Err(help) => {
            help.print()?;
            Ok(None)
        }
    }
}

/// Of commands that pass arguments on: their own options, which may stand anywhere, and whether these take a value.
fn own_options(command: &str) -> Option<&'static [(&'static str, bool)]> {
    const SERVICES: (&str, bool) = ("--services", true);
    const SERIES: (&str, bool) = ("--series", true);
    match command {
        "test" | "bench" | "profile" => Some(&[SERVICES, SERIES]),
        "soak" => Some(&[SERIES, ("--cluster", false)]),
        "upgrade" => Some(&[SERIES]),
        "shards" => Some(&[("--measure", false)]),
        "browser" => Some(&[SERVICES, ("--pictures", false)]),
        "api" => Some(&[SERVICES]),
        _ => None,
    }
}

/// Puts a command's own options first, and all that it passes on behind `--`.
fn sort(words: Vec<String>) -> Vec<String> {
    let Some(own) = own_options(&words[0]) else { return words };
    let is_help = |word: &str| word == "--help" || word == "-h";
    let has_drivers_help = matches!(words[0].as_str(), "soak" | "bench" | "profile");
    if words.len() == 2 && is_help(&words[1]) && !has_drivers_help {
        return words;
    }
    let mut words = words.into_iter();
    let (mut first, mut passed_on): (Vec<String>, _) = (words.next().into_iter().collect(), Vec::new());
    while let Some(word) = words.next() {
        let name = word.split('=').next().unwrap_or_default();
        match own.iter().find(|(option, _)| *option == name) {
            Some((_, takes_value)) => {
                let has_value = word.contains('=');
                first.push(word);
                if *takes_value && !has_value {
                    first.extend(words.next());
                }
            }
            None => passed_on.push(word),
        }
    }
    first.push("--".to_owned());
    first.extend(passed_on);
    first
}

/// What clap complains of, without the lines on usage.
fn in_one_line(error: &clap::Error, command: &str) -> anyhow::Error {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
    let complaint = lines.join(" ");
    let complaint = complaint.strip_prefix("error: ").unwrap_or(&complaint);
    wrong_usage(format!("{command}: {complaint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn parsed(line: &str) -> Command {
        parse(words(line)).unwrap().unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_commands_own_options_may_stand_among_those_that_it_passes_on() {
        for (line, sorted) in [
            ("test", "test --"),
            ("test a --services private -E x", "test --services private -- a -E x"),
            ("test --series=new -- --ignored", "test --series=new -- -- --ignored"),
            ("browser --pictures x", "browser --pictures -- x"),
            ("soak --services x --seed 1", "soak -- --services x --seed 1"),
            ("soak --help", "soak -- --help"),
            ("upgrade --seed 1 --series new", "upgrade --series new -- --seed 1"),
            ("upgrade --help", "upgrade --help"),
            ("test --help", "test --help"),
            ("demo --keep", "demo --keep"),
        ] {
            assert_eq!(sort(words(line)), words(sorted), "{line}");
        }
    }

    #[test]
    fn what_is_passed_on_arrives_as_it_is() {
        let Command::Test(test) = parsed("test --no-fail-fast -E x -- --ignored --services running") else {
            panic!()
        };
        assert_eq!(test.arguments, words("--no-fail-fast -E x -- --ignored"));
        assert_eq!(test.servers.services, Some(Source::Running));
        let Command::Compose(compose) = parsed("compose --tests cargo test --locked -- a::") else {
            panic!()
        };
        assert_eq!(compose.command, words("cargo test --locked -- a::"));
        let Command::Bare(bare) = parsed("bare test --services private x") else { panic!() };
        assert_eq!(bare.command, words("test --services private x"));
    }

    #[test]
    fn a_wrong_command_line_is_refused_in_one_line() {
        for line in [
            "nonsense",
            "demo --wipe",
            "demo --services",
            "test --services mine",
            "test --series newest",
            "fuzz --seconds 0",
            "fuzz --seconds x",
            "down --keep",
            "compose up",
            "images now",
            "soak-service postgres eat",
        ] {
            let error = parse(words(line)).unwrap_err().to_string();
            assert!(
                !error.contains('\n') && error.ends_with("(./dev help lists what there is)"),
                "{line}: {error}"
            );
        }
    }
}
