//! The systemd units: they are well formed, and hardened.

use super::outcome::Outcome;
use crate::{
    run::Run,
    shell::{self, RunToEnd as _},
};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

const FOLDER: &str = "deploy/systemd";
/// Ten times what `systemd-analyze security` may show: 10 is exposed, 0 is safe.
const EXPOSURE: &str = "15";

pub(crate) fn check() -> Result<Outcome> {
    if shell::find("systemd-analyze").is_none() {
        return Ok(Outcome::Skipped("systemd-analyze is not installed (./dev check --install)"));
    }
    let run = Run::begin()?;
    let mut units = Vec::new();
    for entry in fs::read_dir(FOLDER).context(FOLDER)? {
        let from = entry?.path();
        let name = from.file_name().context("a unit has a name")?.to_owned();
        // The program is not installed here, and systemd looks for it.
        let text =
            fs::read_to_string(&from)?.replace("ExecStart=/usr/bin/session-invite", "ExecStart=/bin/true");
        units.push(write(&run.directory, &name.to_string_lossy(), &text)?);
    }
    for unit in &units {
        verify(unit)?;
        shell::command("systemd-analyze")
            .args(["security", "--offline=yes", &format!("--threshold={EXPOSURE}")])
            .arg(unit)
            .read()
            .with_context(|| format!("{} is exposed more than {EXPOSURE}/10", unit.display()))?;
    }
    percent(&run.directory)?;
    Ok(Outcome::Passed)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

/// Warnings count: systemd ignores a line that it does not understand.
fn verify(unit: &Path) -> Result<()> {
    let complaint = complaint(unit)?;
    ensure!(complaint.is_empty(), "systemd-analyze verify {}: {complaint}", unit.display());
    Ok(())
}

fn complaint(unit: &Path) -> Result<String> {
    let output = shell::command("systemd-analyze").args(["verify", "--man=no"]).arg(unit).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(if complaint.is_empty() && !output.status.success() { output.status.to_string() } else { complaint })
}

/// What docs/DEPLOYING.md says of `%2f` in `Environment=`: systemd takes the `%2` for one of its own, and `%%2f` is right.
fn percent(folder: &Path) -> Result<()> {
    let unit =
        |vhost: &str| format!("[Service]\nExecStart=/bin/true\nEnvironment=AMQP_URL=amqp://h/{vhost}\n");
    let trap = complaint(&write(folder, "trap.service", &unit("%2f"))?)?;
    ensure!(trap.contains("%2f"), "systemd takes %2f in Environment=; correct docs/DEPLOYING.md");
    verify(&write(folder, "escaped.service", &unit("%%2f"))?)
}
