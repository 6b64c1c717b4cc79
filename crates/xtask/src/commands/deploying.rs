//! `./dev deploying`: the commands of docs/DEPLOYING.md as they are written there, in a Debian with systemd.

use super::{images::base_image, package};
use crate::{
    cli::PackageOptions,
    output::step,
    paths,
    run::Run,
    shell::{self, RunToEnd as _},
    undo::Resource,
};
use anyhow::{Result, ensure};
use std::{fs, path::Path, process::Command, time::Duration};

const RUNS_WITHIN: Duration = Duration::from_mins(2);
/// On a machine with nothing else to do it takes two minutes.
const ENDS_WITHIN: Duration = Duration::from_mins(10);

/// The container's first process. systemd needs a hierarchy of control groups that it may write to; that of the engine is
/// read-only.
const INIT: &str = "\
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends systemd systemd-sysv dbus >/dev/null
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
    umount -R /sys/fs/cgroup
    mount -t tmpfs cgroup /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
else
    mount -o remount,rw /sys/fs/cgroup
fi
# Credentials are mounted in a namespace of their own, and must show in the others.
mount --make-rshared /
exec env container=docker /lib/systemd/systemd
";

pub(crate) fn run() -> Result<()> {
    ensure!(docker(&["info"]).succeeds()?, "no Docker engine answers here");
    let run = Run::begin()?;
    let packages = run.directory.join("try");
    // The second differs by its version alone.
    for (name, version) in [("old", None), ("new", Some("99.0.0"))] {
        let version = version.map(str::to_owned);
        package::run(&PackageOptions { quick: true, version })?;
        collect(&paths::target().join("package"), &packages.join(name))?;
    }
    fs::copy("docs/DEPLOYING.md", packages.join("DEPLOYING.md"))?;
    fs::copy("tests/deploying/run", packages.join("run"))?;
    let name = run.name();
    run.note(Resource::Container(name.clone()))?;
    step("Debian, with systemd", || start(&name, &packages))?;
    let limit = ENDS_WITHIN.as_secs().to_string();
    docker(&["exec", &name, "timeout", &limit, "bash", "/try/run"]).run()
}

fn collect(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let file = entry?;
        if file.path().extension().is_some_and(|extension| extension == "deb") {
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(())
}

fn start(name: &str, packages: &Path) -> Result<()> {
    docker(&["run", "--detach", "--name", name, "--hostname", "debian"])
        // Everything but what not every engine's own machine has.
        .args(["--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--cgroupns", "private"])
        .args(["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"])
        .args(["--security-opt", "systempaths=unconfined", "--tmpfs", "/run", "--tmpfs", "/tmp"])
        .args([&base_image("sources")?, "bash", "-c", INIT])
        .read()?;
    // The engine may run elsewhere: a folder of this machine may not be there to mount.
    docker(&["cp"]).arg(packages).arg(format!("{name}:/try")).read()?;
    let is_running = format!(
        "timeout {} bash -c 'until [[ $(systemctl is-system-running) =~ running|degraded ]]; do sleep 1; done' 2>&1",
        RUNS_WITHIN.as_secs()
    );
    docker(&["exec", name, "bash", "-c", &is_running]).read().map(drop)
}

fn docker(arguments: &[&str]) -> Command {
    let mut command = shell::command("docker");
    command.args(arguments);
    command
}
