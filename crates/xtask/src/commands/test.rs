//! `./dev test`: the whole suite against real services.

use crate::{
    cli::TestOptions,
    postgres,
    run::Run,
    services,
    shell::{self, RunToEnd as _, variable},
};
use anyhow::Result;

pub(crate) fn run(options: &TestOptions) -> Result<()> {
    let run = Run::begin()?;
    let services = services::find(&run, options.servers)?;
    postgres::need_programs()?;
    let cargo = |arguments: &[&str]| {
        let mut command = shell::command("cargo");
        command.args(arguments).envs(services.environment());
        command
    };
    // Doc tests come first. With arguments, which choose tests, they are left out: nextest runs none.
    if options.arguments.is_empty() {
        cargo(&["test", "--locked", "--workspace", "--doc", "--quiet"]).run()?;
    }
    // Nothing is printed after the runner's own summary.
    if shell::command("cargo").args(["nextest", "--version"]).succeeds()? {
        return cargo(&["nextest", "run", "--locked", "--workspace"]).args(&options.arguments).run();
    }
    let mut runner = cargo(&["test", "--locked", "--workspace"]);
    if variable("RUST_TEST_THREADS").is_none() {
        // As many at a time as in .config/nextest.toml.
        runner.env("RUST_TEST_THREADS", "6");
    }
    if options.arguments.is_empty() {
        runner.args(["--no-fail-fast", "--lib", "--bins", "--tests"]);
    }
    runner.args(&options.arguments).run()
}
