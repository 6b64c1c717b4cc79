//! The previous release's program, built from its commit. The commit is in `tests/previous-release`.

use crate::{
    output::say,
    paths,
    shell::{self, RunToEnd as _},
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

const COMMIT_FILE: &str = "tests/previous-release";

/// Gives the program's path. It is built once for each commit, in `.dev/previous-release`.
pub(crate) fn build() -> Result<PathBuf> {
    let commit = committed()?;
    let home = paths::dev()?.join("previous-release");
    let program = home.join(format!("session-invite-{commit}"));
    if shell::is_executable(&program) {
        say(format!("The previous release: {} (built before)", &commit[..10]));
        return Ok(program);
    }
    check_history()?;
    say(format!("The previous release: building {} (minutes, the first time)", &commit[..10]));
    let begun = Instant::now();
    let checkout = home.join("checkout");
    remove_checkout(&checkout)?;
    fs::create_dir_all(&home)?;
    git(&["worktree", "add", "--quiet", "--force", "--detach"]).arg(&checkout).arg(&commit).run()?;
    let target = home.join("target");
    take_dependencies(&target)?;
    let built = build_in(&checkout, &target);
    remove_checkout(&checkout)?;
    // Under its last name only once it is whole.
    let part = home.join("session-invite.part");
    fs::copy(built?, &part)?;
    fs::rename(&part, &program)?;
    say(format!("The previous release: built in {} s", begun.elapsed().as_secs()));
    Ok(program)
}

/// The one line that is not a comment, if it is a full hash.
fn read_commit(text: &str) -> Option<&str> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let commit = lines.next().filter(|_| lines.next().is_none())?;
    let is_hash = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then_some(commit)
}

/// A shallow clone lacks most commits, and a folder without `.git` every commit.
pub(crate) fn has_whole_history() -> Result<bool> {
    if !git(&["rev-parse", "--git-dir"]).succeeds()? {
        return Ok(false);
    }
    Ok(git(&["rev-parse", "--is-shallow-repository"]).read()?.trim() == "false")
}

/// The commit must be one of this release's ancestors: a clone has no other.
pub(crate) fn check_history() -> Result<()> {
    if !git(&["rev-parse", "--git-dir"]).succeeds()? {
        bail!("the previous release is built from git's history, and this folder is not a git checkout");
    }
    let commit = committed()?;
    if !git(&["merge-base", "--is-ancestor", &commit, "HEAD"]).succeeds()? {
        bail!(
            "git does not have the commit {commit} of {COMMIT_FILE} in this branch's history: fetch the whole history \
             (git fetch --unshallow), or correct the file"
        );
    }
    Ok(())
}

/// The commit that the file names.
fn committed() -> Result<String> {
    let text = fs::read_to_string(COMMIT_FILE).context(COMMIT_FILE)?;
    let commit = read_commit(&text);
    commit
        .map(str::to_owned)
        .with_context(|| format!("{COMMIT_FILE} must have comments and one full commit hash"))
}

/// Copies what this release's build has compiled, so that only dependencies of other versions are compiled again.
fn take_dependencies(target: &Path) -> Result<()> {
    let (from, to) = (paths::target().join("debug"), target.join("debug"));
    fs::create_dir_all(&to)?;
    for folder in [".fingerprint", "build", "deps"] {
        if from.join(folder).is_dir() && !to.join(folder).exists() {
            shell::command("cp").args(["-a", "--reflink=auto"]).arg(from.join(folder)).arg(&to).run()?;
        }
    }
    Ok(())
}

/// The program alone, without tests, with the profile that `./dev` builds this release with.
fn build_in(checkout: &Path, target: &Path) -> Result<PathBuf> {
    // A .env file of the checkout's parent folders is not read, and its queries are checked against the committed .sqlx.
    let mut command = shell::command("cargo");
    command.args(["build", "--locked", "--quiet", "--bin", "session-invite"]);
    command.current_dir(checkout).env("CARGO_TARGET_DIR", target).env("SQLX_OFFLINE", "true");
    command.run().context("the previous release did not build")?;
    Ok(target.join("debug/session-invite"))
}

fn remove_checkout(checkout: &Path) -> Result<()> {
    if checkout.exists() {
        fs::remove_dir_all(checkout)?;
    }
    git(&["worktree", "prune"]).run()
}

fn git(arguments: &[&str]) -> std::process::Command {
    let mut command = shell::command("git");
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_comments_and_one_hash() {
        let hash = "b5e7ca8d0123456789abcdef0123456789abcdef";
        assert_eq!(read_commit(&format!("# why\n\n{hash}\n")), Some(hash));
        for text in
            ["", "# why\n", "b5e7ca8\n", "main\n", &format!("{hash}\n{hash}\n"), &format!("{hash}x\n")]
        {
            assert_eq!(read_commit(text), None, "{text}");
        }
    }

    #[test]
    fn the_committed_file_has_a_hash() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(COMMIT_FILE);
        assert!(read_commit(&fs::read_to_string(file).unwrap()).is_some());
    }
}
