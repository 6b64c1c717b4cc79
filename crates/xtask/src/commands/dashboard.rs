//! `./dev dashboard`: a real Prometheus evaluates every panel of the dashboard, and the alerts.

use crate::{
    cli::DashboardOptions,
    packages,
    run::Run,
    services,
    shell::{self, RunToEnd as _},
};
use anyhow::Result;

pub(crate) fn run(options: &DashboardOptions) -> Result<()> {
    packages::need_command("prometheus", &["prometheus"])?;
    packages::need_command("prometheus-node-exporter", &["prometheus-node-exporter"])?;
    let run = Run::begin()?;
    let services = services::find(&run, options.servers.options())?;
    let mut tests = shell::command("cargo");
    tests.args(["test", "--locked", "--quiet", "--test", "dashboard"]);
    tests.envs(services.environment());
    tests.run()
}
