//! `./dev package`: what a release is more than source. A static program, a .deb of it, and the list of what is in it.

use crate::{
    cli::PackageOptions,
    output::{say, step},
    packages, paths, program,
    shell::{self, RunToEnd as _},
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const CARGO_CYCLONEDX_VERSION: &str = "0.5.9";
const SBOM: &str = "session-invite.cdx.json";
const PAGES: [&str; 4] = ["README.md", "CHANGELOG.md", "SECURITY.md", "ARCHITECTURE.md"];

/// Files of the package: where each is from, where it goes, and its mode.
const FILES: [(&str, &str, u32); 10] = [
    ("deploy/debian/session-invite-operator", "usr/sbin/session-invite-operator", 0o755),
    ("deploy/debian/env", "etc/session-invite/env", 0o640),
    ("deploy/debian/copyright", "usr/share/doc/session-invite/copyright", 0o644),
    (
        "deploy/systemd/session-invite-worker.service",
        "lib/systemd/system/session-invite-worker.service",
        0o644,
    ),
    (
        "deploy/systemd/session-invite-gateway.service",
        "lib/systemd/system/session-invite-gateway.service",
        0o644,
    ),
    (
        "deploy/systemd/session-invite-console.service",
        "lib/systemd/system/session-invite-console.service",
        0o644,
    ),
    ("deploy/postgres/roles.sql", "usr/share/session-invite/postgres/roles.sql", 0o644),
    ("deploy/postgres/rights.sql", "usr/share/session-invite/postgres/rights.sql", 0o644),
    ("deploy/rabbitmq/users", "usr/share/session-invite/rabbitmq/users", 0o755),
    ("deploy/nginx/session-invite.conf", "usr/share/session-invite/nginx/session-invite.conf", 0o644),
];

pub(crate) fn run(options: &PackageOptions) -> Result<()> {
    packages::need_command("dpkg-deb", &["dpkg"])?;
    let folder = paths::target().join("package");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let program = step("Build (minutes)", || build(options.quick))?;
    if !options.quick {
        step("It is static", || ensure_static(&program))?;
        step("SBOM: CycloneDX, of the program's crates", || sbom(&folder))?;
    }
    let version = options.version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    let package = step("Package", || package(&folder, &program, &version, !options.quick))?;
    if !options.quick {
        fs::copy(&program, folder.join("session-invite"))?;
    }
    say(format!("{}: {} KiB", package.display(), fs::metadata(&package)?.len() / 1024));
    Ok(())
}

/// The program's path. glibc's own resolver is linked in: names are resolved by `files` and `dns` of /etc/nsswitch.conf.
fn build(quick: bool) -> Result<PathBuf> {
    if quick {
        program::build()?;
        return program::path();
    }
    let mut command = shell::command("cargo");
    command.args([
        "build",
        "--locked",
        "--quiet",
        "--bin",
        "session-invite",
        "--release",
        "--target",
        TARGET,
    ]);
    // The host's build scripts and macros are not affected by the variable of a target that is named.
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
    command.env("CARGO_INCREMENTAL", "0").run().context("the build failed")?;
    Ok(paths::target().join(TARGET).join("release/session-invite"))
}

fn ensure_static(program: &Path) -> Result<()> {
    let (path, headers) = (
        program.display(),
        shell::command("readelf").args(["--program-headers", "--wide"]).arg(program).read()?,
    );
    ensure!(!headers.contains("INTERP"), "{path} needs a dynamic linker");
    Ok(())
}

/// Written beside the package, and into it.
fn sbom(folder: &Path) -> Result<()> {
    let tools = paths::dev()?.join("tools");
    if !shell::is_executable(&tools.join("bin/cargo-cyclonedx")) {
        super::check::install_tool("cargo-cyclonedx", CARGO_CYCLONEDX_VERSION)?;
    }
    let made = Path::new("session-invite_bin.cdx.json");
    shell::command(tools.join("bin/cargo-cyclonedx"))
        .args(["cyclonedx", "--format", "json", "--describe", "binaries", "--spec-version", "1.5"])
        .args(["--target", TARGET, "--no-build-deps", "--manifest-path", "Cargo.toml"])
        .read()?;
    let text =
        fs::read_to_string(made).with_context(|| format!("cargo-cyclonedx made no {}", made.display()))?;
    let others =
        fs::read_dir("crates")?.flatten().filter_map(|member| fs::read_dir(member.path()).ok()).flatten();
    let is_sbom = |file: &PathBuf| file.to_string_lossy().ends_with("_bin.cdx.json");
    // It makes one of each member of the workspace that is a program.
    for file in others.flatten().map(|entry| entry.path()).filter(is_sbom).chain([made.to_owned()]) {
        fs::remove_file(file)?;
    }
    fs::write(folder.join(SBOM), text)?;
    Ok(())
}

fn package(folder: &Path, program: &Path, version: &str, is_static: bool) -> Result<PathBuf> {
    let root = folder.join("root");
    copy(program, &root.join("usr/bin/session-invite"), 0o755)?;
    shell::command("strip").arg(root.join("usr/bin/session-invite")).run()?;
    for (from, to, mode) in FILES {
        copy(Path::new(from), &root.join(to), mode)?;
    }
    documents(folder, &root)?;
    completions(program, &root)?;
    let control = root.join("DEBIAN");
    for script in ["postinst", "prerm", "postrm"] {
        copy(&Path::new("deploy/debian").join(script), &control.join(script), 0o755)?;
    }
    fs::write(control.join("conffiles"), "/etc/session-invite/env\n")?;
    fs::write(control.join("control"), control_file(version, is_static))?;
    let package = folder.join(format!("session-invite_{version}_amd64.deb"));
    let date = shell::command("git").args(["log", "-1", "--format=%ct"]).read()?;
    shell::command("dpkg-deb")
        .args(["--root-owner-group", if is_static { "-Zxz" } else { "-Zgzip" }, "--build"])
        .args([&root, &package])
        .env("SOURCE_DATE_EPOCH", date)
        .read()?;
    fs::remove_dir_all(root)?;
    Ok(package)
}

fn control_file(version: &str, is_static: bool) -> String {
    let libraries = if is_static { "" } else { ", libc6, libgcc-s1" };
    format!(
        "Package: session-invite\nVersion: {version}\nArchitecture: amd64\nSection: net\nPriority: optional\n\
         Maintainer: the authors of session-invite <root@localhost>\nDepends: passwd, ca-certificates{libraries}\n\
         Suggests: postgresql, rabbitmq-server, nginx\n\
         Description: invites by text message, from RabbitMQ or HTTP\n \
         A worker turns an invite from RabbitMQ into one session, at most one text, and\n \
         always an answer. A gateway takes the same invite over HTTP.\n"
    )
}

/// The pages, and the SBOM if there is one.
fn documents(folder: &Path, root: &Path) -> Result<()> {
    let to = root.join("usr/share/doc/session-invite");
    for page in PAGES {
        copy(Path::new(page), &to.join(page), 0o644)?;
    }
    for entry in fs::read_dir("docs")? {
        let from = entry?.path();
        if from.extension().is_some_and(|extension| extension == "md") {
            copy(&from, &to.join("docs").join(from.file_name().context("a page has a name")?), 0o644)?;
        }
    }
    let sbom = folder.join(SBOM);
    if sbom.exists() { copy(&sbom, &to.join(SBOM), 0o644) } else { Ok(()) }
}

fn completions(program: &Path, root: &Path) -> Result<()> {
    for (shell, to) in [
        ("bash", "bash-completion/completions/session-invite"),
        ("zsh", "zsh/vendor-completions/_session-invite"),
        ("fish", "fish/vendor_completions.d/session-invite.fish"),
    ] {
        let text = shell::command(program).args(["completions", shell]).read()?;
        if text.is_empty() {
            bail!("there are no completions for {shell}");
        }
        let to = root.join("usr/share").join(to);
        fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
        fs::write(to, text)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
    fs::copy(from, to).with_context(|| from.display().to_string())?;
    fs::set_permissions(to, Permissions::from_mode(mode))?;
    Ok(())
}
