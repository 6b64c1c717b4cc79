//! The image's build: its context has what it needs. The compose file: its tests exist, and its ports are local.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

/// Files that cargo reads beside the sources. `migrate!` and the checked queries do not name their folders.
const READ_BY_THE_BUILD: [&str; 6] =
    ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", ".sqlx", "migrations", "benches"];
/// Sources of programs that `./dev` starts on the machine itself.
const NOT_IN_AN_IMAGE: [&str; 5] =
    ["crates/soak", "crates/bench", "crates/xtask", "tests/browser", "tests/dashboard"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files under a path of the project, or the file itself.
fn files(path: &Path) -> Vec<PathBuf> {
    let whole = root().join(path);
    if whole.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(&whole).into_iter().flatten().flatten();
    entries.flat_map(|entry| files(&path.join(entry.file_name()))).collect()
}

/// Whether Docker sends the file to the build. The last line of `.dockerignore` that matches the file or a folder above it
/// decides.
fn is_in_context(ignore: &str, file: &Path) -> bool {
    let mut is_in = true;
    for line in ignore.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (pattern, takes) = line.strip_prefix('!').map_or((line, false), |pattern| (pattern, true));
        assert!(
            pattern == "*" || !pattern.contains(['*', '?', '[']),
            "this test does not know the pattern {line}"
        );
        if pattern == "*" || file.starts_with(pattern) {
            is_in = takes;
        }
    }
    is_in
}

/// The path without `.` and `..`, unless it leaves the project.
fn within(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir => plain.pop().then_some(())?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!plain.as_os_str().is_empty()).then_some(plain)
}

/// The string literals of a line, approximately: the text between its quotes. Of a format string, the part up to the folder.
fn literals(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2).map(|text| match text.split_once('{') {
        Some((before, _)) => before.rfind('/').map_or("", |end| &before[..end]),
        None => text,
    })
}

/// The files of the project that a source file names, by paths from its own folder (`include_str!`) or from the root.
fn named(source: &Path) -> BTreeSet<PathBuf> {
    let text = read(source);
    let beside = source.parent().expect("a file is in a folder");
    text.lines()
        .flat_map(literals)
        .filter(|text| text.contains(['/', '.']))
        .flat_map(|text| [beside.join(text), PathBuf::from(text)])
        .filter_map(|path| within(&path))
        .filter(|path| !path.starts_with("target") && !path.starts_with(".git"))
        .flat_map(|path| files(&path))
        .collect()
}

#[test]
fn the_images_context_has_every_file_that_the_build_and_the_tests_read() {
    let ignore = read(".dockerignore");
    let code = ["src", "tests", "benches", "crates"].map(Path::new);
    let sources: Vec<PathBuf> = code.into_iter().flat_map(files).collect();
    let mut needed: BTreeSet<PathBuf> =
        READ_BY_THE_BUILD.iter().flat_map(|path| files(Path::new(path))).collect();
    for source in &sources {
        let is_elsewhere = NOT_IN_AN_IMAGE.iter().any(|folder| source.starts_with(folder));
        if source.extension().is_some_and(|extension| extension == "rs") && !is_elsewhere {
            needed.extend(named(source));
        }
    }
    needed.extend(sources);
    let missing: Vec<_> = needed.iter().filter(|file| !is_in_context(&ignore, file)).collect();
    assert!(missing.is_empty(), ".dockerignore leaves out what is needed: {missing:#?}");
}

#[test]
fn a_file_that_a_source_names_is_found() {
    for (source, file) in [
        ("src/gateway/openapi/schemas.rs", "docs/schemas/request.schema.json"),
        ("src/gateway/visitor.rs", "src/gateway/visitor.html"),
        ("crates/sms-sandbox/src/control.rs", "crates/sms-sandbox/src/inbox.html"),
        ("tests/docs.rs", "README.md"),
        ("tests/docs.rs", "docs/schemas/reply.schema.json"),
    ] {
        assert!(named(Path::new(source)).contains(Path::new(file)), "{source} names {file}");
    }
}

#[test]
fn secrets_and_build_output_stay_out_of_the_context() {
    let ignore = read(".dockerignore");
    for file in [
        ".env",
        ".dev/secrets-key",
        ".git/config",
        "target/debug/session-invite",
        "fuzz/target/x",
        "fuzz/corpus/link/x",
    ] {
        assert!(!is_in_context(&ignore, Path::new(file)), "{file}");
    }
}

#[test]
fn the_test_modules_in_the_compose_file_exist() {
    let compose = read("docker-compose.yml");
    let chosen: Vec<_> =
        compose.lines().filter_map(|line| line.trim().strip_prefix("- \"")?.strip_suffix("::\"")).collect();
    assert!(chosen.len() > 20, "{chosen:?}");
    for module in chosen {
        let path = root().join("tests/it").join(module.replace("::", "/"));
        let is_there = path.join("mod.rs").exists() || path.with_extension("rs").exists();
        assert!(is_there, "tests/it has no module {module}");
    }
}

#[test]
fn the_compose_file_publishes_the_gateway_the_sandbox_and_the_monitoring_only() {
    let compose = read("docker-compose.yml");
    let published =
        compose.lines().filter_map(|line| line.trim().strip_prefix("- \"127.0.0.1:${")?.split(':').next());
    assert!(published.eq(["GATEWAY_PORT", "SANDBOX_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"]));
    assert_eq!(compose.matches("\n    ports:\n").count(), 3);
}

#[test]
fn the_monitoring_starts_only_by_its_profile_and_mounts_files_that_exist() {
    let compose = read("docker-compose.yml");
    for name in ["prometheus", "grafana"] {
        let service = compose.split(&format!("\n  {name}:\n")).nth(1).expect(name);
        let service = service.split("\n\n").next().expect(name);
        assert!(service.starts_with("    profiles: [\"monitoring\"]\n"), "{service}");
        let files: Vec<_> =
            service.lines().filter_map(|line| line.trim().strip_prefix("- ./")?.split(':').next()).collect();
        assert_eq!(files.len(), 2, "{service}");
        assert!(files.iter().all(|file| root().join(file).exists()), "{files:?}");
    }
}

#[test]
fn the_clusters_ports_are_local_and_its_urls_name_each_node() {
    let compose = read("docker-compose.cluster.yml");
    let published: Vec<_> = compose.lines().filter(|line| line.contains("_PORT:-")).collect();
    assert_eq!(published.len(), 3, "{published:?}");
    assert!(published.iter().all(|line| line.trim_start().starts_with("- \"127.0.0.1:$")), "{published:?}");
    for address in
        ["@rabbitmq-1:5672/", "@rabbitmq-2:5672/", "@rabbitmq-3:5672/", "@postgres-1:5432,postgres-2:5432/"]
    {
        assert!(compose.contains(address), "{address}");
    }
}

#[test]
fn a_build_needs_no_dockerfile_frontend_from_a_registry() {
    assert!(!read("Dockerfile").contains("# syntax="));
}
