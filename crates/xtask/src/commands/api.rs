//! `./dev api`: schemathesis against the gateway's own OpenAPI document, with whatever that allows and does not allow.

use super::{demo::GROUP, setup};
use crate::{
    cli::ApiOptions,
    driver,
    names::Names,
    output::{say, step},
    paths, python, random,
    run::Run,
    settings::Settings,
    shell::RunToEnd as _,
};
use anyhow::Result;
use std::path::PathBuf;

const SCHEMATHESIS_VERSION: &str = "4.32.5";

pub(crate) fn run(options: &ApiOptions) -> Result<()> {
    let run = Run::begin()?;
    let settings = prepare(&run, options)?;
    step("Worker", || settings.start_worker(&run))?;
    step("Gateway", || settings.start_gateway(&run))?;
    let gkey = settings.invite(&["tokens", "issue", "gkey", "--group", GROUP, "--ttl", "2h"])?.read()?;
    say("");
    let mut words = vec!["env".to_owned(), format!("--chdir={}", run.directory.display())];
    words.push(install()?.join("schemathesis").display().to_string());
    words.extend(["--no-color", "run"].map(str::to_owned));
    words.push(format!("{}/openapi.json", settings.public_url()));
    words.extend(["--header".to_owned(), format!("Authorization: Bearer GKEY {gkey}")]);
    words.extend(["--checks", "all"].map(str::to_owned));
    words.extend_from_slice(&options.arguments);
    let mut environment = settings.environment();
    let hooks = paths::root()?.join("tests/api/hooks.py");
    environment.push(("SCHEMATHESIS_HOOKS".to_owned(), hooks.display().to_string()));
    driver::run(&run, "schemathesis", &words, &environment)
}

/// Everything but the worker and the gateway.
fn prepare(run: &Run, options: &ApiOptions) -> Result<Settings> {
    let names = Names::of_run("api")?;
    step(&format!("schemathesis {SCHEMATHESIS_VERSION}, in .dev/tools"), || install().map(drop))?;
    let settings = setup::prepare(run, &names, options.servers.options(), random::key)?;
    step("Migrate", || settings.invite(&["migrate"])?.run())?;
    step(&format!("Add group {GROUP}, without limits"), || {
        settings.invite(&["groups", "add", GROUP, "--per-number", "0"])?.read().map(drop)
    })?;
    Ok(settings)
}

fn install() -> Result<PathBuf> {
    python::programs("schemathesis", &[&format!("schemathesis=={SCHEMATHESIS_VERSION}")])
}
