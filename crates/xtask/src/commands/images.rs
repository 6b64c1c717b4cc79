//! `./dev images`: the container images build, and the program's holds nothing else.

use crate::{
    compose,
    output::{say, step},
    random,
    run::Run,
    shell::{self, RunToEnd as _},
    undo::Resource,
};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
};

const IMAGE: &str = "session-invite";
/// As in the compose files, so that both take one image. Those that are not set have no effect.
const BUILD_ARGUMENTS: [&str; 3] =
    ["CARGO_PROFILE_RELEASE_LTO", "CARGO_PROFILE_RELEASE_OPT_LEVEL", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS"];
/// What the program may add to the runtime image's base.
const LIMIT_MIB: i64 = 60;
const PROGRAM: &str = "usr/local/bin/session-invite";
const SHELLS: [&str; 5] = ["sh", "ash", "bash", "dash", "busybox"];

pub(crate) fn run() -> Result<()> {
    compose::need_engine()?;
    let run = Run::begin()?;
    step("Build the image of the program", || {
        let mut build = docker(&["build", "--quiet", "--target", "runtime", "--tag", IMAGE]);
        for name in BUILD_ARGUMENTS {
            build.args(["--build-arg", name]);
        }
        build.arg(".").run()
    })?;
    let label = format!("It has the program, no shell and no root, in {LIMIT_MIB} MiB at most");
    step(&label, || check_image(&run))?;
    step("Build the image of the tests", || docker(&["build", "--quiet", "--target", "tests", "."]).run())
}

fn docker(arguments: &[&str]) -> Command {
    let mut command = shell::command("docker");
    // The builder that the command-line tool of Debian 12 takes by itself knows no cache mounts.
    command.args(arguments).env("DOCKER_BUILDKIT", "1");
    command
}

/// The image from which a stage of the Dockerfile begins.
pub(crate) fn base_image(stage: &str) -> Result<String> {
    base_in(&fs::read_to_string("Dockerfile")?, stage)
        .with_context(|| format!("the Dockerfile has no stage {stage}"))
}

fn base_in(dockerfile: &str, stage: &str) -> Option<String> {
    dockerfile.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        ["FROM", base, "AS", name] if name == stage => Some(base.to_owned()),
        _ => None,
    })
}

fn check_image(run: &Run) -> Result<()> {
    let base = base_image("runtime")?;
    let user = docker(&["image", "inspect", "--format", "{{.Config.User}}", IMAGE]).read()?;
    if is_root(&user) {
        bail!("the image runs as root");
    }
    let size = (size(IMAGE)? - size(&base)?) / 1_048_576;
    if size >= LIMIT_MIB {
        bail!("the image has {size} MiB more than {base}");
    }
    check_files(&files(run, &base)?, &files(run, IMAGE)?)?;
    say(format!("{IMAGE}: user {user}, {size} MiB more than {base}"));
    Ok(())
}

/// Such as `root`, `0` or `0:0`.
fn is_root(user: &str) -> bool {
    matches!(user.split(':').next(), None | Some("" | "0" | "root"))
}

fn check_files(base: &BTreeSet<String>, image: &BTreeSet<String>) -> Result<()> {
    let is_shell = |file: &&String| {
        let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
        (folder == "bin" || folder.ends_with("/bin")) && SHELLS.contains(&name)
    };
    if let Some(shell) = image.iter().find(is_shell) {
        bail!("there is a shell in the image: {shell}");
    }
    let added: Vec<_> = image.difference(base).map(String::as_str).collect();
    if added != [PROGRAM] {
        bail!("the image has other files than the program: {}", added.join(" "));
    }
    Ok(())
}

fn size(image: &str) -> Result<i64> {
    let size = docker(&["image", "inspect", "--format", "{{.Size}}", image]).read()?;
    size.parse().with_context(|| format!("the size of {image} is {size}"))
}

/// The paths of an image's files, without directories.
fn files(run: &Run, image: &str) -> Result<BTreeSet<String>> {
    let container = format!("{}-{}", run.name(), random::word()?);
    run.note(Resource::Container(container.clone()))?;
    docker(&["create", "--name", &container, image, "none"]).read()?;
    let mut export = docker(&["export", &container]).stdout(Stdio::piped()).spawn()?;
    let archive = export.stdout.take().context("its output is a pipe")?;
    let listed = shell::command("tar").arg("--list").stdin(archive).read()?;
    shell::as_result(shell::wait(&mut export, None)?)?;
    Ok(listed.lines().filter(|path| !path.ends_with('/')).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[&str]) -> BTreeSet<String> {
        files.iter().map(|file| (*file).to_owned()).collect()
    }

    #[test]
    fn a_stages_base_is_found() {
        let dockerfile = "FROM rust:1 AS sources\nFROM sources AS builder\nFROM cc:nonroot AS runtime\n";
        assert_eq!(base_in(dockerfile, "runtime").as_deref(), Some("cc:nonroot"));
        assert_eq!(base_in(dockerfile, "tests"), None);
    }

    #[test]
    fn the_image_may_have_the_program_only() {
        let base = set(&["etc/passwd", "usr/lib/libc.so"]);
        let with = |more: &str| check_files(&base, &base.union(&set(&[PROGRAM, more])).cloned().collect());
        assert!(with(PROGRAM).is_ok());
        assert!(with("bin/sh").unwrap_err().to_string().contains("shell"));
        assert!(with("usr/local/bin/busybox").unwrap_err().to_string().contains("shell"));
        assert!(with("src/main.rs").unwrap_err().to_string().contains("src/main.rs"));
        assert!(check_files(&base, &base).is_err(), "the program is missing");
    }

    #[test]
    fn root_is_known_by_all_its_names() {
        assert!(["", "0", "root", "0:0", "root:root"].into_iter().all(is_root));
        assert!(!["65532", "65532:65532", "nonroot", "00x"].into_iter().any(is_root));
    }
}
