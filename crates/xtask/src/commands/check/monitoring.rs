//! The alerts by Prometheus's own tool, and the dashboard by Grafana's own types.

use super::outcome::Outcome;
use crate::{
    packages, paths,
    shell::{self, RunToEnd as _},
};
use anyhow::Result;
use std::{fs, path::PathBuf};

const FOLDER: &str = "deploy/prometheus";
const DASHBOARD: &str = "deploy/grafana/session-invite.json";
/// The types, and what is written behind them.
const TYPES: &str = "tests/dashboard/schema.ts";
const DECLARATION: &str = "export const dashboard: Dashboard = ";
/// The package of Grafana's types has the version of Grafana that docker-compose.yml starts.
const NPM_PACKAGES: [&str; 2] = ["@grafana/schema@12.3.0", "typescript@5.9.3"];
const COMPILER_OPTIONS: [&str; 7] =
    ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext"];

pub(super) fn install() -> Result<()> {
    packages::need_command("promtool", &["prometheus"])?;
    packages::need_command("amtool", &["prometheus-alertmanager"])?;
    // Debian's npm brings hundreds of packages along: it is not installed for this.
    if shell::find("npm").is_none() || compiler()?.exists() {
        return Ok(());
    }
    packages::install_from_npm(&folder()?, &NPM_PACKAGES)
}

fn folder() -> Result<PathBuf> {
    Ok(paths::dev()?.join("tools/dashboard"))
}

fn compiler() -> Result<PathBuf> {
    Ok(folder()?.join("node_modules/.bin/tsc"))
}

pub(super) fn alerts() -> Result<Outcome> {
    if shell::find("promtool").is_none() {
        return Ok(Outcome::Skipped("promtool is not installed (./dev check --install)"));
    }
    // The first checks the rules that the configuration names, too.
    for words in [["check", "config", "prometheus.yml"], ["test", "rules", "tests.yml"]] {
        shell::command("promtool").current_dir(FOLDER).args(words).read()?;
    }
    if shell::find("amtool").is_none() {
        return Ok(Outcome::Skipped(
            "alertmanager.yml, as amtool is not installed (./dev check --install); the rest passed",
        ));
    }
    shell::command("amtool").current_dir(FOLDER).args(["check-config", "alertmanager.yml"]).read()?;
    Ok(Outcome::Passed)
}

pub(super) fn dashboard() -> Result<Outcome> {
    if !compiler()?.exists() {
        return Ok(Outcome::Skipped("Grafana's types are not installed (./dev check --install, with npm)"));
    }
    let text = [fs::read_to_string(TYPES)?.as_str(), DECLARATION, &fs::read_to_string(DASHBOARD)?].concat();
    let file = folder()?.join("dashboard.ts");
    fs::write(&file, text)?;
    shell::command(compiler()?).args(COMPILER_OPTIONS).arg(file).run()?;
    Ok(Outcome::Passed)
}
