//! `--series new`: RabbitMQ 4 and PostgreSQL 17 of Debian 13, under a root directory of their own, where the
//! distribution has older ones. Their processes see it, and the machine's /proc, /dev and .dev, in a mount namespace
//! that ends with them. So no mount is seen by others, left by a run that is killed, or in the way of a removal.

use crate::{
    failure::wrong_usage,
    installation::Installation,
    output::{say, show_end},
    packages, paths,
    run::{self, Run},
    server::Source,
    shell::{self, RunToEnd as _},
    undo::Resource,
};
use anyhow::{Result, bail};
use std::path::Path;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

pub(crate) fn installation(run: &Run, wanted: Option<Source>) -> Result<Installation> {
    if wanted.is_some_and(|source| source != Source::Private) {
        return Err(wrong_usage("--series new has services of its own, so --services is private with it"));
    }
    packages::need_root("--series new")?;
    let root = paths::dev()?.join("series-new");
    if !root.is_dir() {
        fetch(run, &root)?;
    }
    say(format!("Of Debian 13: {}", versions(&root)?));
    Ok(Installation { within: within(&root)?, root })
}

/// The words that run a command in the system under that root.
fn within(root: &Path) -> Result<Vec<String>> {
    let script = paths::root()?.join("scripts/within");
    let mut words = packages::as_root_do(["unshare", "--mount", "bash"]);
    words.extend([script.as_path(), root].map(|path| path.display().to_string()));
    words.push(paths::dev()?.display().to_string());
    // A service's directory may be in /var/tmp.
    words.extend(["/var/tmp", "/proc", "/dev"].map(str::to_owned));
    if packages::is_root() {
        words.push("--".to_owned());
    } else {
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getgid().as_raw();
        // PostgreSQL wants a name for its user.
        words.extend(["/etc/passwd", "--", "setpriv"].map(str::to_owned));
        words.extend([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
    }
    Ok(words)
}

/// It is made in the run's directory and moved when complete, so that a run that is killed leaves no half of it.
fn fetch(run: &Run, root: &Path) -> Result<()> {
    let made = run.directory.join("series-new");
    packages::need_command("debootstrap", &["debootstrap"])?;
    packages::need_command("gpgv", &["gpgv"])?;
    packages::need_file(Path::new(KEYRING), &["debian-archive-keyring"])?;
    say(
        "Fetching RabbitMQ 4 and PostgreSQL 17 of Debian 13 into .dev/series-new, which stays (a minute or two)",
    );
    run.note(Resource::RootDirectory(made.clone()))?;
    let made_text = made.display().to_string();
    // The packages' scripts may start what they install; such a process ends with its namespace.
    let mut words =
        packages::as_root_do(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    words.extend(["debootstrap", "--variant=minbase"].map(str::to_owned));
    words.push(format!("--keyring={KEYRING}"));
    words.extend(["--include=rabbitmq-server,postgresql-17", "trixie", &made_text].map(str::to_owned));
    words.extend(mirror()?);
    let (_, mut child) = run.start_child("debootstrap", &words, &[])?;
    if !run::wait_for_end(&mut child)?.success() {
        show_end(&run.log("debootstrap"), 5);
        bail!("debootstrap could not make Debian 13");
    }
    shell::of_words(&packages::as_root_do(["chroot", &made_text, "apt-get", "clean"])).run()?;
    let moved =
        packages::as_root_do(["mv", "--no-target-directory", &made_text, &root.display().to_string()]);
    // Another run may have been quicker.
    if !shell::of_words(&moved).succeeds()? && !root.is_dir() {
        bail!("{made_text} could not be moved to {}", root.display());
    }
    Ok(())
}

/// The mirror that this machine's own Debian packages come from. If there is none, debootstrap takes its default.
fn mirror() -> Result<Option<String>> {
    if shell::find("apt-get").is_none() {
        return Ok(None);
    }
    let listed = shell::command("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
            "Label: Debian",
        ])
        .answers()?
        .unwrap_or_default();
    let is_http = |line: &&str| line.starts_with("http:") || line.starts_with("https:");
    Ok(listed.lines().find(is_http).map(str::to_owned))
}

fn versions(root: &Path) -> Result<String> {
    let listed = shell::command("dpkg-query")
        .arg(format!("--admindir={}", root.join("var/lib/dpkg").display()))
        .args(["--showformat", "${Package} ${Version}\\n", "--show", "rabbitmq-server", "postgresql-17"])
        .read()?;
    Ok(listed.lines().collect::<Vec<_>>().join(","))
}
