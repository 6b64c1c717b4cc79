//! The workspace's crates depend only on those that they may, and each version is written once.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Rust sources under a folder, by their paths from the project's root.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder is there").map(Result::unwrap);
    let mut found = Vec::new();
    for entry in entries {
        let path = folder.join(entry.file_name());
        if root().join(&path).is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The manifest of each crate under `crates`, by its folder's name.
fn manifests() -> Vec<(String, String)> {
    let folders = fs::read_dir(root().join("crates")).expect("crates is there").map(Result::unwrap);
    let names = folders.map(|folder| folder.file_name().into_string().expect("a name in UTF-8"));
    names.map(|name| (name.clone(), read(format!("crates/{name}/Cargo.toml")))).collect()
}

/// The entries of a manifest's section: the name, and the rest of the line.
fn section<'a>(manifest: &'a str, name: &str) -> Vec<(&'a str, &'a str)> {
    let header = format!("[{name}]");
    let lines = manifest.lines().skip_while(|line| *line != header).skip(1);
    let entries = lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with('#'));
    entries.filter_map(|line| line.split_once(['.', ' '])).collect()
}

/// Whether a source names the sandbox's crate. The command that starts the sandbox is a module of the same name, which other
/// files may declare, import and use.
fn names_the_sandbox(source: &str) -> bool {
    source.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.trim_start().starts_with("use sms_sandbox")
            || line.contains("::sms_sandbox::") && !line.contains("commands::sms_sandbox::")
            || line.split("sms_sandbox").skip(1).any(|after| {
                let module = ["::SmsSandboxArgs", "::run", "::is_wrong_usage", ",", ";", "}"];
                !module.iter().any(|expected| after.starts_with(expected))
            })
    })
}

#[test]
fn only_one_command_names_the_sandbox() {
    let all = sources(Path::new("src"));
    let naming: Vec<_> = all.iter().filter(|path| names_the_sandbox(&read(path))).collect();
    assert_eq!(naming, [Path::new("src/commands/sms_sandbox.rs")]);
    for wrong in
        ["use sms_sandbox::Faults;", "let faults = sms_sandbox::Faults::default();", "::sms_sandbox::run()"]
    {
        assert!(names_the_sandbox(wrong), "{wrong}");
    }
}

#[test]
fn the_program_depends_on_no_development_tool_but_the_sandbox() {
    let listed = |manifest: &str| -> Vec<String> {
        let own = manifests().into_iter().map(|(name, _)| name).chain(["session-invite".to_owned()]);
        let named = section(manifest, "dependencies");
        own.filter(|name| named.iter().any(|(dependency, _)| dependency == name)).collect()
    };
    let mut program = listed(&read("Cargo.toml"));
    program.sort();
    assert_eq!(program, ["sms-provider", "sms-sandbox"]);
    for (name, expected) in [("sms-provider", &[][..]), ("sms-sandbox", &["sms-provider"])] {
        assert_eq!(listed(&read(format!("crates/{name}/Cargo.toml"))), expected, "{name}");
    }
}

#[test]
fn the_workspace_manifest_alone_has_versions_and_lints() {
    for (name, manifest) in manifests().into_iter().chain([("the program".to_owned(), read("Cargo.toml"))]) {
        for kind in ["dependencies", "dev-dependencies"] {
            for (dependency, rest) in section(&manifest, kind) {
                assert!(rest.contains("workspace = true"), "{name}: {dependency} {rest}");
            }
        }
        for field in ["version", "edition", "rust-version", "license", "publish"] {
            assert!(manifest.contains(&format!("\n{field}.workspace = true\n")), "{name}: {field}");
        }
        assert!(manifest.contains("\n[lints]\nworkspace = true\n"), "{name} has lints of its own");
    }
}
