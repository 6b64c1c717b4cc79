//! The workers' logs.

use std::{fs, path::Path};

/// Lines of the workers' logs that report an error or a panic.
pub(crate) fn errors(logs: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(logs).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("worker-") {
            continue;
        }
        let log = fs::read_to_string(entry.path()).unwrap_or_default();
        let errors = log.lines().filter(|line| line.contains(" ERROR ") || line.contains("panicked"));
        lines.extend(errors.map(|line| format!("{name}: {line}")));
    }
    lines.sort();
    lines
}
