//! `./dev shards`: the recipes of docs/SCALING.md, as they are written there, on servers of this run.

use super::bench;
use crate::{
    cli::ShardsOptions,
    driver,
    installation::Installation,
    names::Names,
    output::{quoted, step},
    packages, ports, postgres, program, rabbitmq, random,
    run::Run,
    server::{Server, Source},
    services::{self, ServiceOptions, Services},
    settings::{self, Settings},
    shell::{self, RunToEnd as _},
};
use anyhow::Result;

pub(crate) fn run(options: &ShardsOptions) -> Result<()> {
    step("Build (minutes, the first time)", program::build)?;
    packages::need_command("python3", &["python3"])?;
    let (run, other_run) = (Run::begin()?, Run::begin()?);
    let private = ServiceOptions { services: Some(Source::Private), ..ServiceOptions::default() };
    let services = step("PostgreSQL and RabbitMQ", || services::find(&run, private))?;
    let other = step("A second PostgreSQL", || {
        postgres::start_private(&other_run, &Installation::of_this_machine())
    })?;
    let mut environment = step("SMS provider: the sandbox", || prepare(&run, &services))?;
    let other = Server { url: other, source: Source::Private };
    for (name, run, server) in [("A", &run, &services.postgres), ("B", &other_run, &other)] {
        let database =
            postgres::make_database(run, server, &format!("session_invite_{}", name.to_lowercase()))?;
        environment.push((format!("DATABASE_{name}"), database));
    }
    let words = ["python3", "-u", "tests/sharding/recipes.py"].map(str::to_owned);
    driver::run(&run, "recipes", &words, &environment)?;
    if options.measure {
        let parts = ["--only", "scale-out", "--only", "shards"].map(str::to_owned);
        let all: Vec<_> = parts.into_iter().chain(options.options.iter().cloned()).collect();
        bench::measure_on(&run, &services, &all)?;
    }
    Ok(())
}

/// The recipes' commands, on their PATH, and their settings.
fn prepare(run: &Run, services: &Services) -> Result<Vec<(String, String)>> {
    let names = Names::of_run("shards")?;
    let database = postgres::make_database(run, &services.postgres, &names.database)?;
    let sandbox = settings::start_sandbox(run)?;
    let settings = Settings::new(services, database, names.queue_prefix, random::key()?, sandbox)?;
    let management = ports::free()?.to_string();
    let program = quoted(&program::path()?.display().to_string());
    rabbitmq::make_program(run, "session-invite", &format!("cd / && exec {program}"))?;
    rabbitmq::make_program(
        run,
        "rabbitmqadmin",
        &format!("exec /usr/bin/rabbitmqadmin --port {management}"),
    )?;
    // Its default port may be another broker's.
    let listener = format!("[{{ip, \"127.0.0.1\"}}, {{port, {management}}}]");
    shell::command(run.directory.join("rabbitmqctl"))
        .arg("eval")
        .arg(format!(
            "application:set_env(rabbitmq_management, tcp_config, {listener}, [{{persistent, true}}])."
        ))
        .read()?;
    let mut environment = settings.environment();
    let path = std::env::var("PATH").unwrap_or_default();
    environment.extend(
        [
            ("PATH", format!("{}:{path}", run.directory.display())),
            ("MANAGEMENT_PORT", management),
            ("RECIPE_DIR", run.directory.display().to_string()),
            ("RUST_LOG", "warn".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    Ok(environment)
}
