//! `./dev compose`: the compose file, up and down again; with `--tests` its tests; with `--cluster` the other file.

use super::demo::{GROUP, SAMPLE, post_invite, show_inbox};
use crate::{
    cli::ComposeOptions,
    compose::{self, ComposeFile, Project},
    interrupt,
    output::step,
    ports, random,
    run::Run,
    shell::RunToEnd as _,
    undo::Resource,
};
use anyhow::{Result, bail};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Its volumes keep the crates and what was compiled of them, for `./dev compose --tests` and `./dev bare`.
pub(crate) const TESTS_PROJECT: &str = "session-invite-tests";
const DELIVERED_WITHIN: Duration = Duration::from_secs(20);
/// The file takes these from the environment, for a real provider.
const OF_A_PROVIDER: [&str; 5] =
    ["SMS_BASE_URL", "PUBLIC_URL", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "SMS_FROM"];

pub(crate) fn run(options: &ComposeOptions) -> Result<()> {
    compose::need_engine()?;
    let run = Run::begin()?;
    if options.tests {
        return run_tests(&run, &options.command);
    }
    if options.cluster {
        return run_cluster(&run);
    }
    let stack = Stack::new(&run)?;
    run.note(Resource::ComposeProject(stack.project.name.clone()))?;
    step("docker compose up --build --wait", || {
        stack.compose(&["--progress", "quiet", "up", "--detach", "--build", "--wait"]).run()
    })?;
    step("The policy that lifts RabbitMQ 4's delivery limit holds for three queues", || {
        stack.check_policy()
    })?;
    step(&format!("Add group {GROUP}"), || stack.worker(&["groups", "add", GROUP]).run())?;
    step("Invite over the queue, and its reply", || stack.worker(&SAMPLE).run())?;
    step("The same over HTTP", || {
        let gkey = stack.worker(&["tokens", "issue", "gkey", "--group", GROUP, "--user", "12345"]).read()?;
        post_invite(&format!("127.0.0.1:{}", stack.gateway_port), &gkey)
    })?;
    step("The texts, as the provider got them", || stack.wait_for_deliveries())?;
    step("Stop, and remove what was made", || {
        run.end();
        Ok(())
    })
}

/// The whole compose file, on free ports.
struct Stack {
    project: Project,
    gateway_port: u16,
    sandbox_port: u16,
}

impl Stack {
    fn new(run: &Run) -> Result<Self> {
        let (gateway_port, sandbox_port) = (ports::free()?, ports::free()?);
        let mut project = run.compose_project();
        project.environment = vec![
            ("GATEWAY_PORT", gateway_port.to_string()),
            ("SANDBOX_PORT", sandbox_port.to_string()),
            ("SECRETS_KEY", random::key()?),
        ];
        Ok(Self { project, gateway_port, sandbox_port })
    }

    fn compose(&self, arguments: &[&str]) -> Command {
        let mut command = self.project.command();
        for name in OF_A_PROVIDER {
            command.env_remove(name);
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// A command of the program in the worker's container.
    fn worker(&self, arguments: &[&str]) -> Command {
        self.program("worker", arguments)
    }

    /// A command of the program in a container. The image has no shell, and needs none for this.
    fn program(&self, container: &str, arguments: &[&str]) -> Command {
        let mut command = self.compose(&["exec", "-T", container, "session-invite"]);
        command.args(arguments);
        command
    }

    fn check_cluster(&self) -> Result<()> {
        let list = ["exec", "-T", BROKERS[0], "rabbitmqctl", "--quiet", "--no-table-headers", "list_queues"];
        let queues = self.compose(&list).arg("members").read()?;
        if let Some(short) = queues.lines().find(|members| members.matches("rabbit@").count() != 3) {
            bail!("a queue has the members {short}");
        }
        let count = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        let psql = ["exec", "-T", "postgres-1", "psql", "-U", "session_invite", "-Atc", count];
        match self.compose(&psql).read()?.as_str() {
            "1" => Ok(()),
            other => bail!("{other} standbys are synchronous"),
        }
    }

    fn check_policy(&self) -> Result<()> {
        let command = ["exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "list_queues", "policy"];
        let policies = self.compose(&command).read()?;
        let count = policies.lines().filter(|line| *line == "session-invite").count();
        if count != 3 {
            bail!("it holds for {count}");
        }
        Ok(())
    }

    fn wait_for_deliveries(&self) -> Result<()> {
        let begun = Instant::now();
        let delivered = ["sessions", "list", "--status", "delivered", "--json"];
        while self.worker(&delivered).read()?.matches("\"delivered\"").count() != 2 {
            if begun.elapsed() > DELIVERED_WITHIN {
                bail!("two texts are not delivered in {} s", DELIVERED_WITHIN.as_secs());
            }
            interrupt::pause()?;
        }
        show_inbox(&format!("http://127.0.0.1:{}", self.sandbox_port))
    }
}

/// The nodes of docker-compose.cluster.yml.
const BROKERS: [&str; 3] = ["rabbitmq-1", "rabbitmq-2", "rabbitmq-3"];

fn run_cluster(run: &Run) -> Result<()> {
    let mut stack = Stack::new(run)?;
    stack.project.file = ComposeFile::Cluster;
    stack.project.environment.push(("GATEWAY_2_PORT", ports::free()?.to_string()));
    run.note(Resource::ComposeCluster(stack.project.name.clone()))?;
    step("docker compose -f docker-compose.cluster.yml up --build --wait", || {
        stack.compose(&["--progress", "quiet", "up", "--detach", "--build", "--wait"]).run()
    })?;
    step("Each queue has three members, and the standby is synchronous", || stack.check_cluster())?;
    step(&format!("Add group {GROUP}"), || stack.program("worker-1", &["groups", "add", GROUP]).run())?;
    for broker in BROKERS {
        step(&format!("Invite by {broker}, and its reply"), || {
            let url = format!("amqp://session_invite:session_invite@{broker}:5672/%2f");
            stack.program("worker-1", &SAMPLE).args(["--amqp-url", &url]).run()
        })?;
    }
    step("The texts, as the provider got them", || {
        show_inbox(&format!("http://127.0.0.1:{}", stack.sandbox_port))
    })?;
    step("Stop, and remove what was made", || {
        run.end();
        Ok(())
    })
}

/// The tests' profile; arguments replace its command. Nothing is printed after the runner's own summary.
fn run_tests(run: &Run, command: &[String]) -> Result<()> {
    run.note(Resource::ComposeTests(TESTS_PROJECT.to_owned()))?;
    let mut compose = Project::new(TESTS_PROJECT).command();
    compose.args(["--progress", "quiet", "--profile", "tests", "run", "--build", "--rm", "tests"]);
    compose.args(command).stdin(Stdio::null()).run()
}
